program "matmul_hoisted" for "trn1"
tensor %lhsT: bf16 33554432
tensor %rhs: bf16 67108864
tensor %result: bf16 33554432
input %lhsT
input %rhs
output "result" = %result
kernel @matmul_hoisted(reads %lhsT: bf16 33554432, reads %rhs: bf16 67108864, writes %result: bf16 33554432) sbuf 40960 psum 4 {
  var %m
  var %n
  var %k
  semaphore $psum_full = 0
  semaphore $psum_free = 4
  semaphore $out_full = 0
  semaphore $out_free = 4
  semaphore $lhs_full = 0
  semaphore $lhs_free = 2
  semaphore $rhs_full = 0
  semaphore $rhs_free = 4
  source "matmul_hoisted"
  origin "matmul_hoisted"
  stream tensor {
    loop %m from 0 to 32 step 1 {
      loop %k from 0 to 64 step 1 {
        nop wait [$lhs_full]
      }
      loop %n from 0 to 16 step 1 {
        loop %k from 0 to 63 step 1 {
          matmul stationary=sbuf(bf16, 0, 128, 4096 + 256*%k + 16384*turn(%m, 2), [1:128]) moving=sbuf(bf16, 0, 128, 36864 + 1024*turn(%k, 4), [1:512]) out=psum(f32, 0, 128, 0 + 2048*turn(%n, 4), [1:512]) accumulate=no pace=single scales=none when zero 0 + 1*%k wait [$rhs_full, $psum_free] signal [$rhs_free]
          matmul stationary=sbuf(bf16, 0, 128, 4096 + 256*%k + 16384*turn(%m, 2), [1:128]) moving=sbuf(bf16, 0, 128, 36864 + 1024*turn(%k, 4), [1:512]) out=psum(f32, 0, 128, 0 + 2048*turn(%n, 4), [1:512]) accumulate=yes pace=single scales=none when nonzero 0 + 1*%k wait [$rhs_full] signal [$rhs_free]
        }
        matmul stationary=sbuf(bf16, 0, 128, 20224 + 16384*turn(%m, 2), [1:128]) moving=sbuf(bf16, 0, 128, 39936, [1:512]) out=psum(f32, 0, 128, 0 + 2048*turn(%n, 4), [1:512]) accumulate=yes pace=single scales=none wait [$rhs_full] signal [$rhs_free, $psum_full]
      }
      nop after signal [$lhs_free]
    }
  }
  stream vector {
    loop %m from 0 to 32 step 1 {
      loop %n from 0 to 16 step 1 {
        copy input=psum(f32, 0, 128, 0 + 2048*turn(%n, 4), [1:512]) out=sbuf(bf16, 0, 128, 0 + 1024*turn(%n, 4), [1:512]) wait [$psum_full, $out_free] signal [$psum_free, $out_full]
      }
    }
  }
  stream scalar {
    nop calls [%lhsT, %rhs, %result]
    nop wait [$lhs_free]
    loop %k from 0 to 64 step 1 {
      dma bf16 [128, 128] from far(%lhsT, 0 + 524288*%k, [4096, 1]) to near(sbuf, 0, 4096 + 256*%k, [1:0, 0:1]) signal [$lhs_full]
    }
    loop %m from 0 to 31 step 1 {
      nop wait [$lhs_free]
      loop %k from 0 to 64 step 1 {
        dma bf16 [128, 128] from far(%lhsT, 128 + 128*%m + 524288*%k, [4096, 1]) to near(sbuf, 0, 20480 + 256*%k + -16384*turn(%m, 2), [1:0, 0:1]) signal [$lhs_full]
      }
      loop %n from 0 to 16 step 1 {
        dma bf16 [128, 512] from near(sbuf, 0, 0 + 1024*turn(%n, 4), [1:0, 0:1]) to far(%result, 0 + 1048576*%m + 512*%n, [8192, 1]) wait [$out_full] signal [$out_free]
      }
    }
    loop %n from 0 to 16 step 1 {
      dma bf16 [128, 512] from near(sbuf, 0, 0 + 1024*turn(%n, 4), [1:0, 0:1]) to far(%result, 32505856 + 512*%n, [8192, 1]) wait [$out_full] signal [$out_free]
    }
  }
  stream sync {
    nop calls [%lhsT, %rhs, %result]
    loop %m from 0 to 32 step 1 {
      loop %n from 0 to 16 step 1 {
        loop %k from 0 to 63 step 1 {
          dma bf16 [128, 512] from far(%rhs, 0 + 512*%n + 1048576*%k, [8192, 1]) to near(sbuf, 0, 36864 + 1024*turn(%k, 4), [1:0, 0:1]) wait [$rhs_free] signal [$rhs_full]
        }
        dma bf16 [128, 512] from far(%rhs, 66060288 + 512*%n, [8192, 1]) to near(sbuf, 0, 39936, [1:0, 0:1]) wait [$rhs_free] signal [$rhs_full]
      }
    }
  }
}
run {
  call @matmul_hoisted(%lhsT, %rhs, %result) from ["matmul_hoisted"]
}
