program "matmul_tiled" for "trn2"
tensor %lhsT: f32 33554432
tensor %rhs: f32 67108864
tensor %result: f32 33554432
input %lhsT
input %rhs
output "result" = %result
kernel @matmul_tiled(reads %lhsT: f32 33554432, reads %rhs: f32 67108864, writes %result: f32 33554432) sbuf 18432 psum 4 {
  var %m
  var %n
  var %k
  semaphore $psum_full = 0
  semaphore $psum_free = 4
  semaphore $out_full = 0
  semaphore $out_free = 4
  semaphore $lhs_full = 0
  semaphore $lhs_free = 4
  semaphore $rhs_full = 0
  semaphore $rhs_free = 4
  source "matmul_tiled"
  origin "matmul_tiled"
  stream tensor {
    loop %m from 0 to 32 step 1 {
      loop %n from 0 to 16 step 1 {
        loop %k from 0 to 63 step 1 {
          matmul stationary=sbuf(f32, 0, 128, 8192 + 512*turn(%k, 4), [1:128]) moving=sbuf(f32, 0, 128, 10240 + 2048*turn(%k, 4), [1:512]) out=psum(f32, 0, 128, 0 + 2048*turn(%n, 4), [1:512]) accumulate=no pace=four scales=none when zero 0 + 1*%k wait [$lhs_full, $rhs_full, $psum_free] signal [$lhs_free, $rhs_free]
          matmul stationary=sbuf(f32, 0, 128, 8192 + 512*turn(%k, 4), [1:128]) moving=sbuf(f32, 0, 128, 10240 + 2048*turn(%k, 4), [1:512]) out=psum(f32, 0, 128, 0 + 2048*turn(%n, 4), [1:512]) accumulate=yes pace=four scales=none when nonzero 0 + 1*%k wait [$lhs_full, $rhs_full] signal [$lhs_free, $rhs_free]
        }
        matmul stationary=sbuf(f32, 0, 128, 9728, [1:128]) moving=sbuf(f32, 0, 128, 16384, [1:512]) out=psum(f32, 0, 128, 0 + 2048*turn(%n, 4), [1:512]) accumulate=yes pace=four scales=none wait [$lhs_full, $rhs_full] signal [$lhs_free, $rhs_free, $psum_full]
      }
    }
  }
  stream vector {
    loop %m from 0 to 32 step 1 {
      loop %n from 0 to 16 step 1 {
        copy input=psum(f32, 0, 128, 0 + 2048*turn(%n, 4), [1:512]) out=sbuf(f32, 0, 128, 0 + 2048*turn(%n, 4), [1:512]) wait [$psum_full, $out_free] signal [$psum_free, $out_full]
      }
    }
  }
  stream scalar {
    nop calls [%lhsT, %rhs, %result]
    loop %m from 0 to 32 step 1 {
      loop %n from 0 to 16 step 1 {
        dma f32 [128, 512] from near(sbuf, 0, 0 + 2048*turn(%n, 4), [1:0, 0:1]) to far(%result, 0 + 1048576*%m + 512*%n, [8192, 1]) wait [$out_full] signal [$out_free]
      }
    }
  }
  stream sync {
    nop calls [%lhsT, %rhs, %result]
    loop %m from 0 to 32 step 1 {
      loop %n from 0 to 16 step 1 {
        loop %k from 0 to 63 step 1 {
          dma f32 [128, 128] from far(%lhsT, 0 + 128*%m + 524288*%k, [4096, 1]) to near(sbuf, 0, 8192 + 512*turn(%k, 4), [1:0, 0:1]) wait [$lhs_free] signal [$lhs_full]
          dma f32 [128, 512] from far(%rhs, 0 + 512*%n + 1048576*%k, [8192, 1]) to near(sbuf, 0, 10240 + 2048*turn(%k, 4), [1:0, 0:1]) wait [$rhs_free] signal [$rhs_full]
        }
        dma f32 [128, 128] from far(%lhsT, 33030144 + 128*%m, [4096, 1]) to near(sbuf, 0, 9728, [1:0, 0:1]) wait [$lhs_free] signal [$lhs_full]
        dma f32 [128, 512] from far(%rhs, 66060288 + 512*%n, [8192, 1]) to near(sbuf, 0, 16384, [1:0, 0:1]) wait [$rhs_free] signal [$rhs_full]
      }
    }
  }
}
run {
  call @matmul_tiled(%lhsT, %rhs, %result) from ["matmul_tiled"]
}
