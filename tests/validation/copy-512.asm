program "copy" for "trn2"
tensor %x: bf16 1048576
tensor %y: bf16 1048576
input %x
output "y" = %y
kernel @copy(reads %x: bf16 1048576, writes %y: bf16 1048576) sbuf 4096 psum 0 {
  var %i
  semaphore $x_full = 0
  semaphore $x_free = 4
  source "copy"
  origin "copy"
  stream scalar {
    nop calls [%x, %y]
    loop %i from 0 to 16 step 1 {
      dma bf16 [128, 512] from near(sbuf, 0, 0 + 1024*turn(%i, 4), [1:0, 0:1]) to far(%y, 0 + 512*%i, [8192, 1]) wait [$x_full] signal [$x_free]
    }
  }
  stream sync {
    nop calls [%x, %y]
    loop %i from 0 to 16 step 1 {
      dma bf16 [128, 512] from far(%x, 0 + 512*%i, [8192, 1]) to near(sbuf, 0, 0 + 1024*turn(%i, 4), [1:0, 0:1]) wait [$x_free] signal [$x_full]
    }
  }
}
run {
  call @copy(%x, %y) from ["copy"]
}
