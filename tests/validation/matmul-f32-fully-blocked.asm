program "matmul_fully_blocked" for "trn2"
tensor %lhsT: f32 33554432
tensor %rhs: f32 67108864
tensor %result: f32 33554432
input %lhsT
input %rhs
output "result" = %result
kernel @matmul_fully_blocked(reads %lhsT: f32 33554432, reads %rhs: f32 67108864, writes %result: f32 33554432) sbuf 196608 psum 8 {
  var %n
  var %k
  var %m
  var %bn
  var %bm
  var %bk
  semaphore $lhs_full = 0
  semaphore $lhs_free = 2
  semaphore $rhs_full = 0
  semaphore $rhs_free = 2
  semaphore $psum_full = 0
  semaphore $psum_free = 8
  semaphore $out_full = 0
  semaphore $out_free = 32
  source "matmul_fully_blocked"
  origin "matmul_fully_blocked"
  stream tensor {
    loop %n from 0 to 8 step 1 {
      loop %k from 0 to 16 step 1 {
        loop %bk from 0 to 4 step 1 {
          nop wait [$rhs_full]
        }
        loop %m from 0 to 4 step 1 {
          loop %bk from 0 to 4 step 1 {
            nop wait [$lhs_full]
          }
          loop %bn from 0 to 2 step 1 {
            loop %bm from 0 to 8 step 1 {
              loop %bk from 0 to 3 step 1 {
                matmul stationary=sbuf(f32, 0, 128, 131072 + 512*%bm + 4096*%bk + 16384*turn(%m, 2), [1:128]) moving=sbuf(f32, 0, 128, 163840 + 2048*%bn + 4096*%bk + 16384*turn(%k, 2), [1:512]) out=psum(f32, 0, 128, 0 + 2048*turn(%bm, 8), [1:512]) accumulate=no pace=four scales=none when zero 0 + 1*%bk wait [$psum_free]
                matmul stationary=sbuf(f32, 0, 128, 131072 + 512*%bm + 4096*%bk + 16384*turn(%m, 2), [1:128]) moving=sbuf(f32, 0, 128, 163840 + 2048*%bn + 4096*%bk + 16384*turn(%k, 2), [1:512]) out=psum(f32, 0, 128, 0 + 2048*turn(%bm, 8), [1:512]) accumulate=yes pace=four scales=none when nonzero 0 + 1*%bk
              }
              matmul stationary=sbuf(f32, 0, 128, 143360 + 512*%bm + 16384*turn(%m, 2), [1:128]) moving=sbuf(f32, 0, 128, 176128 + 2048*%bn + 16384*turn(%k, 2), [1:512]) out=psum(f32, 0, 128, 0 + 2048*turn(%bm, 8), [1:512]) accumulate=yes pace=four scales=none signal [$psum_full]
            }
          }
          nop after signal [$lhs_free]
        }
        nop signal [$rhs_free]
      }
    }
  }
  stream vector {
    loop %n from 0 to 8 step 1 {
      loop %m from 0 to 4 step 1 {
        loop %bm from 0 to 8 step 1 {
          nop wait [$out_free]
        }
        loop %bn from 0 to 2 step 1 {
          loop %bm from 0 to 8 step 1 {
            copy input=psum(f32, 0, 128, 0 + 2048*turn(%bm, 8), [1:512]) out=sbuf(f32, 0, 128, 0 + 32768*%m + 2048*%bn + 4096*%bm, [1:512]) wait [$psum_full] signal [$psum_free]
          }
        }
      }
      loop %k from 0 to 15 step 1 {
        loop %m from 0 to 4 step 1 {
          loop %bn from 0 to 2 step 1 {
            loop %bm from 0 to 8 step 1 {
              tensor-tensor alu=add a=psum(f32, 0, 128, 0 + 2048*turn(%bm, 8), [1:512]) b=sbuf(f32, 0, 128, 0 + 32768*%m + 2048*%bn + 4096*%bm, [1:512]) out=sbuf(f32, 0, 128, 0 + 32768*%m + 2048*%bn + 4096*%bm, [1:512]) wait [$psum_full] after signal [$psum_free]
            }
          }
        }
      }
      loop %m from 0 to 4 step 1 {
        loop %bm from 0 to 8 step 1 {
          nop after signal [$out_full]
        }
      }
    }
  }
  stream scalar {
    nop calls [%lhsT, %rhs, %result]
    loop %n from 0 to 8 step 1 {
      loop %k from 0 to 16 step 1 {
        nop wait [$rhs_free]
        loop %bk from 0 to 4 step 1 {
          dma f32 [128, 1024] from far(%rhs, 0 + 1024*%n + 4194304*%k + 1048576*%bk, [8192, 1]) to near(sbuf, 0, 163840 + 4096*%bk + 16384*turn(%k, 2), [1:0, 0:1]) signal [$rhs_full]
        }
      }
    }
  }
  stream gpsimd {
    nop calls [%lhsT, %rhs, %result]
    loop %n from 0 to 8 step 1 {
      loop %m from 0 to 4 step 1 {
        loop %bm from 0 to 8 step 1 {
          dma f32 [128, 1024] from near(sbuf, 0, 0 + 32768*%m + 4096*%bm, [1:0, 0:1]) to far(%result, 0 + 1024*%n + 8388608*%m + 1048576*%bm, [8192, 1]) wait [$out_full] signal [$out_free]
        }
      }
    }
  }
  stream sync {
    nop calls [%lhsT, %rhs, %result]
    loop %n from 0 to 8 step 1 {
      loop %k from 0 to 16 step 1 {
        loop %m from 0 to 4 step 1 {
          nop wait [$lhs_free]
          loop %bk from 0 to 4 step 1 {
            dma f32 [128, 1024] from far(%lhsT, 0 + 2097152*%k + 1024*%m + 524288*%bk, [4096, 1]) to near(sbuf, 0, 131072 + 4096*%bk + 16384*turn(%m, 2), [1:0, 0:1]) signal [$lhs_full]
          }
        }
      }
    }
  }
}
run {
  call @matmul_fully_blocked(%lhsT, %rhs, %result) from ["matmul_fully_blocked"]
}
