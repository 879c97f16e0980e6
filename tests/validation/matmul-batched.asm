program "batched_matmul" for "trn1"
tensor %lhsT: f32 4194304
tensor %rhs: f32 4194304
tensor %result: f32 268435456
input %lhsT
input %rhs
output "result" = %result
kernel @batched_matmul(reads %lhsT: f32 4194304, reads %rhs: f32 4194304, writes %result: f32 268435456) sbuf 73728 psum 4 {
  var %b
  var %m
  var %n
  semaphore $lhs_full = 0
  semaphore $rhs_full = 0
  semaphore $operands_free = 2
  semaphore $psum_full = 0
  semaphore $psum_free = 4
  semaphore $out_full = 0
  semaphore $out_free = 4
  source "batched_matmul"
  origin "batched_matmul"
  stream tensor {
    loop %b from 0 to 16 step 1 {
      nop wait [$lhs_full, $rhs_full]
      loop %m from 0 to 32 step 1 {
        loop %n from 0 to 8 step 1 {
          matmul stationary=sbuf(f32, 0, 64, 0 + 512*%m + 16384*turn(%b, 2), [1:128]) moving=sbuf(f32, 0, 64, 32768 + 2048*%n + 16384*turn(%b, 2), [1:512]) out=psum(f32, 0, 128, 0 + 2048*turn(%n, 4), [1:512]) accumulate=no pace=four scales=none wait [$psum_free] signal [$psum_full]
        }
      }
      nop after signal [$operands_free]
    }
  }
  stream vector {
    loop %b from 0 to 16 step 1 {
      loop %m from 0 to 32 step 1 {
        loop %n from 0 to 8 step 1 {
          copy input=psum(f32, 0, 128, 0 + 2048*turn(%n, 4), [1:512]) out=sbuf(f32, 0, 128, 65536 + 2048*turn(%n, 4), [1:512]) wait [$psum_full, $out_free] signal [$psum_free, $out_full]
        }
      }
    }
  }
  stream scalar {
    nop calls [%lhsT, %rhs, %result]
    loop %b from 0 to 16 step 1 {
      loop %m from 0 to 32 step 1 {
        loop %n from 0 to 8 step 1 {
          dma f32 [128, 512] from near(sbuf, 0, 65536 + 2048*turn(%n, 4), [1:0, 0:1]) to far(%result, 0 + 16777216*%b + 524288*%m + 512*%n, [4096, 1]) wait [$out_full] signal [$out_free]
        }
      }
    }
  }
  stream sync {
    nop calls [%lhsT, %rhs, %result]
    loop %b from 0 to 16 step 1 {
      dma f32 [64, 4096] from far(%lhsT, 0 + 262144*%b, [4096, 1]) to near(sbuf, 0, 0 + 16384*turn(%b, 2), [1:0, 0:1]) wait [$operands_free] signal [$lhs_full]
      dma f32 [64, 4096] from far(%rhs, 0 + 262144*%b, [4096, 1]) to near(sbuf, 0, 32768 + 16384*turn(%b, 2), [1:0, 0:1]) signal [$rhs_full]
    }
  }
}
run {
  call @batched_matmul(%lhsT, %rhs, %result) from ["batched_matmul"]
}
