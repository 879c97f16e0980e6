program "matmul_blocked" for "trn2"
tensor %lhsT: f32 33554432
tensor %rhs: f32 67108864
tensor %result: f32 33554432
input %lhsT
input %rhs
output "result" = %result
kernel @matmul_blocked(reads %lhsT: f32 33554432, reads %rhs: f32 67108864, writes %result: f32 33554432) sbuf 335872 psum 4 {
  var %m
  var %n
  var %k
  var %b
  semaphore $psum_full = 0
  semaphore $psum_free = 4
  semaphore $out_full = 0
  semaphore $out_free = 4
  semaphore $lhs_full = 0
  semaphore $lhs_free = 1
  semaphore $rhs_full = 0
  semaphore $rhs_free = 128
  source "matmul_blocked"
  origin "matmul_blocked"
  stream tensor {
    loop %m from 0 to 16 step 1 {
      loop %b from 0 to 2 step 1 {
        loop %k from 0 to 64 step 1 {
          nop wait [$lhs_full]
        }
      }
      loop %n from 0 to 8 step 1 {
        loop %b from 0 to 2 step 1 {
          loop %k from 0 to 63 step 1 {
            matmul stationary=sbuf(f32, 0, 128, 8192 + 512*%k, [1:128]) moving=sbuf(f32, 0, 128, 73728 + 2048*%k + 131072*%b, [1:512]) out=psum(f32, 0, 128, 0 + 2048*%b, [1:512]) accumulate=no pace=four scales=none when zero 0 + 1*%k wait [$rhs_full, $psum_free]
            matmul stationary=sbuf(f32, 0, 128, 8192 + 512*%k, [1:128]) moving=sbuf(f32, 0, 128, 73728 + 2048*%k + 131072*%b, [1:512]) out=psum(f32, 0, 128, 0 + 2048*%b, [1:512]) accumulate=yes pace=four scales=none when nonzero 0 + 1*%k wait [$rhs_full]
          }
          matmul stationary=sbuf(f32, 0, 128, 40448, [1:128]) moving=sbuf(f32, 0, 128, 202752 + 131072*%b, [1:512]) out=psum(f32, 0, 128, 0 + 2048*%b, [1:512]) accumulate=yes pace=four scales=none wait [$rhs_full] signal [$psum_full]
        }
        loop %b from 0 to 2 step 1 {
          loop %k from 0 to 63 step 1 {
            matmul stationary=sbuf(f32, 0, 128, 40960 + 512*%k, [1:128]) moving=sbuf(f32, 0, 128, 73728 + 2048*%k + 131072*%b, [1:512]) out=psum(f32, 0, 128, 4096 + 2048*%b, [1:512]) accumulate=no pace=four scales=none when zero 0 + 1*%k wait [$psum_free] signal [$rhs_free]
            matmul stationary=sbuf(f32, 0, 128, 40960 + 512*%k, [1:128]) moving=sbuf(f32, 0, 128, 73728 + 2048*%k + 131072*%b, [1:512]) out=psum(f32, 0, 128, 4096 + 2048*%b, [1:512]) accumulate=yes pace=four scales=none when nonzero 0 + 1*%k signal [$rhs_free]
          }
          matmul stationary=sbuf(f32, 0, 128, 73216, [1:128]) moving=sbuf(f32, 0, 128, 202752 + 131072*%b, [1:512]) out=psum(f32, 0, 128, 4096 + 2048*%b, [1:512]) accumulate=yes pace=four scales=none signal [$rhs_free, $psum_full]
        }
      }
      nop after signal [$lhs_free]
    }
  }
  stream vector {
    loop %m from 0 to 16 step 1 {
      loop %n from 0 to 8 step 1 {
        loop %b from 0 to 2 step 1 {
          copy input=psum(f32, 0, 128, 0 + 2048*%b, [1:512]) out=sbuf(f32, 0, 128, 0 + 2048*%b, [1:512]) wait [$psum_full, $out_free] signal [$psum_free, $out_full]
        }
        loop %b from 0 to 2 step 1 {
          copy input=psum(f32, 0, 128, 4096 + 2048*%b, [1:512]) out=sbuf(f32, 0, 128, 4096 + 2048*%b, [1:512]) wait [$psum_full, $out_free] signal [$psum_free, $out_full]
        }
      }
    }
  }
  stream scalar {
    nop calls [%lhsT, %rhs, %result]
    loop %m from 0 to 16 step 1 {
      nop wait [$lhs_free]
      loop %b from 0 to 2 step 1 {
        loop %k from 0 to 64 step 1 {
          dma f32 [128, 128] from far(%lhsT, 0 + 256*%m + 524288*%k + 128*%b, [4096, 1]) to near(sbuf, 0, 8192 + 512*%k + 32768*%b, [1:0, 0:1]) signal [$lhs_full]
        }
      }
    }
  }
  stream gpsimd {
    nop calls [%lhsT, %rhs, %result]
    loop %m from 0 to 16 step 1 {
      loop %n from 0 to 8 step 1 {
        loop %b from 0 to 2 step 1 {
          dma f32 [128, 512] from near(sbuf, 0, 0 + 2048*%b, [1:0, 0:1]) to far(%result, 0 + 2097152*%m + 1024*%n + 512*%b, [8192, 1]) wait [$out_full] signal [$out_free]
        }
        loop %b from 0 to 2 step 1 {
          dma f32 [128, 512] from near(sbuf, 0, 4096 + 2048*%b, [1:0, 0:1]) to far(%result, 1048576 + 2097152*%m + 1024*%n + 512*%b, [8192, 1]) wait [$out_full] signal [$out_free]
        }
      }
    }
  }
  stream sync {
    nop calls [%lhsT, %rhs, %result]
    loop %m from 0 to 16 step 1 {
      loop %n from 0 to 8 step 1 {
        loop %b from 0 to 2 step 1 {
          loop %k from 0 to 63 step 1 {
            dma f32 [128, 512] from far(%rhs, 0 + 1024*%n + 1048576*%k + 512*%b, [8192, 1]) to near(sbuf, 0, 73728 + 2048*%k + 131072*%b, [1:0, 0:1]) wait [$rhs_free] signal [$rhs_full]
          }
          dma f32 [128, 512] from far(%rhs, 66060288 + 1024*%n + 512*%b, [8192, 1]) to near(sbuf, 0, 202752 + 131072*%b, [1:0, 0:1]) wait [$rhs_free] signal [$rhs_full]
        }
      }
    }
  }
}
run {
  call @matmul_blocked(%lhsT, %rhs, %result) from ["matmul_blocked"]
}
