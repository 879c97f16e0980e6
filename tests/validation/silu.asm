program "map" for "trn1"
tensor %x: f32 29360128
tensor %y: f32 29360128
input %x
output "y" = %y
kernel @map(reads %x: f32 29360128, writes %y: f32 29360128) sbuf 114688 psum 0 {
  var %i
  semaphore $x_full = 0
  semaphore $x_free = 2
  semaphore $y_full = 0
  semaphore $y_free = 2
  source "map"
  origin "map"
  stream scalar {
    loop %i from 0 to 32 step 1 {
      activation function=silu input=sbuf(f32, 0, 128, 0 + 28672*turn(%i, 2), [1:7168]) scale=1.0 bias=0.0 out=sbuf(f32, 0, 128, 57344 + 28672*turn(%i, 2), [1:7168]) reduce=none wait [$x_full, $y_free] signal [$x_free, $y_full]
    }
  }
  stream gpsimd {
    nop calls [%x, %y]
    loop %i from 0 to 32 step 1 {
      dma f32 [128, 7168] from near(sbuf, 0, 57344 + 28672*turn(%i, 2), [1:0, 0:1]) to far(%y, 0 + 917504*%i, [7168, 1]) wait [$y_full] signal [$y_free]
    }
  }
  stream sync {
    nop calls [%x, %y]
    loop %i from 0 to 32 step 1 {
      dma f32 [128, 7168] from far(%x, 0 + 917504*%i, [7168, 1]) to near(sbuf, 0, 0 + 28672*turn(%i, 2), [1:0, 0:1]) wait [$x_free] signal [$x_full]
    }
  }
}
run {
  call @map(%x, %y) from ["map"]
}
