program "copy" for "trn2"
tensor %x: bf16 4194304
tensor %y: bf16 4194304
input %x
output "y" = %y
kernel @copy(reads %x: bf16 4194304, writes %y: bf16 4194304) sbuf 16384 psum 0 {
  var %i
  semaphore $x_full = 0
  semaphore $x_free = 4
  source "copy"
  origin "copy"
  stream scalar {
    nop calls [%x, %y]
    loop %i from 0 to 16 step 1 {
      dma bf16 [128, 2048] from near(sbuf, 0, 0 + 4096*turn(%i, 4), [1:0, 0:1]) to far(%y, 0 + 2048*%i, [32768, 1]) wait [$x_full] signal [$x_free]
    }
  }
  stream sync {
    nop calls [%x, %y]
    loop %i from 0 to 16 step 1 {
      dma bf16 [128, 2048] from far(%x, 0 + 2048*%i, [32768, 1]) to near(sbuf, 0, 0 + 4096*turn(%i, 4), [1:0, 0:1]) wait [$x_free] signal [$x_full]
    }
  }
}
run {
  call @copy(%x, %y) from ["copy"]
}
