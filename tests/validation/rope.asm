program "rope" for "trn1"
tensor %x: f32 33554432
tensor %cos: f32 16777216
tensor %sin: f32 16777216
tensor %y: f32 33554432
input %x
input %cos
input %sin
output "y" = %y
kernel @rope(reads %x: f32 33554432, reads %cos: f32 16777216, reads %sin: f32 16777216, writes %y: f32 33554432) sbuf 8192 psum 0 {
  var %i
  semaphore $x_full = 0
  semaphore $x_free = 4
  semaphore $cos_full = 0
  semaphore $cos_free = 4
  semaphore $sin_full = 0
  semaphore $sin_free = 4
  semaphore $y_full = 0
  semaphore $y_free = 4
  source "rope"
  origin "rope"
  stream vector {
    loop %i from 0 to 2048 step 1 {
      tensor-tensor alu=multiply a=sbuf(f32, 0, 128, 0 + 512*turn(%i, 4), [1:64]) b=sbuf(f32, 0, 128, 2048 + 256*turn(%i, 4), [1:64]) out=sbuf(f32, 0, 128, 4096 + 512*turn(%i, 4), [1:64]) wait [$x_full, $cos_full, $y_free]
      tensor-tensor alu=multiply a=sbuf(f32, 0, 128, 256 + 512*turn(%i, 4), [1:64]) b=sbuf(f32, 0, 128, 3072 + 256*turn(%i, 4), [1:64]) out=sbuf(f32, 0, 128, 6144 + 512*turn(%i, 4), [1:64]) wait [$sin_full]
      tensor-tensor alu=multiply a=sbuf(f32, 0, 128, 256 + 512*turn(%i, 4), [1:64]) b=sbuf(f32, 0, 128, 2048 + 256*turn(%i, 4), [1:64]) out=sbuf(f32, 0, 128, 4352 + 512*turn(%i, 4), [1:64]) signal [$cos_free]
      tensor-tensor alu=multiply a=sbuf(f32, 0, 128, 0 + 512*turn(%i, 4), [1:64]) b=sbuf(f32, 0, 128, 3072 + 256*turn(%i, 4), [1:64]) out=sbuf(f32, 0, 128, 6400 + 512*turn(%i, 4), [1:64]) signal [$x_free, $sin_free]
      tensor-tensor alu=subtract a=sbuf(f32, 0, 128, 4096 + 512*turn(%i, 4), [1:64]) b=sbuf(f32, 0, 128, 6144 + 512*turn(%i, 4), [1:64]) out=sbuf(f32, 0, 128, 4096 + 512*turn(%i, 4), [1:64]) after
      tensor-tensor alu=add a=sbuf(f32, 0, 128, 4352 + 512*turn(%i, 4), [1:64]) b=sbuf(f32, 0, 128, 6400 + 512*turn(%i, 4), [1:64]) out=sbuf(f32, 0, 128, 4352 + 512*turn(%i, 4), [1:64]) after signal [$y_full]
    }
  }
  stream scalar {
    nop calls [%x, %cos, %sin, %y]
    loop %i from 0 to 2048 step 1 {
      dma f32 [128, 128] from near(sbuf, 0, 4096 + 512*turn(%i, 4), [1:0, 0:1]) to far(%y, 0 + 16384*%i, [128, 1]) wait [$y_full] signal [$y_free]
    }
  }
  stream sync {
    nop calls [%x, %cos, %sin, %y]
    loop %i from 0 to 2048 step 1 {
      dma f32 [128, 128] from far(%x, 0 + 16384*%i, [128, 1]) to near(sbuf, 0, 0 + 512*turn(%i, 4), [1:0, 0:1]) wait [$x_free] signal [$x_full]
      dma f32 [128, 64] from far(%cos, 0 + 8192*%i, [64, 1]) to near(sbuf, 0, 2048 + 256*turn(%i, 4), [1:0, 0:1]) wait [$cos_free] signal [$cos_full]
      dma f32 [128, 64] from far(%sin, 0 + 8192*%i, [64, 1]) to near(sbuf, 0, 3072 + 256*turn(%i, 4), [1:0, 0:1]) wait [$sin_free] signal [$sin_full]
    }
  }
}
run {
  call @rope(%x, %cos, %sin, %y) from ["rope"]
}
