program "matmul_row_major" for "trn1"
tensor %lhs: f32 20971520
tensor %rhs: f32 62914560
tensor %result: f32 50331648
input %lhs
input %rhs
output "result" = %result
kernel @matmul_row_major(reads %lhs: f32 20971520, reads %rhs: f32 62914560, writes %result: f32 50331648) sbuf 86016 psum 8 {
  var %m
  var %n
  var %k
  var %h
  semaphore $lhs_full = 0
  semaphore $lhs_free = 2
  semaphore $turned_full = 0
  semaphore $flip_full = 0
  semaphore $flip_free = 4
  semaphore $rhs_full = 0
  semaphore $rhs_free = 4
  semaphore $psum_full = 0
  semaphore $psum_free = 4
  semaphore $out_full = 0
  semaphore $out_free = 4
  source "matmul_row_major"
  origin "matmul_row_major"
  stream tensor {
    loop %m from 0 to 32 step 1 {
      loop %n from 0 to 12 step 1 {
        nop wait [$lhs_full]
        loop %k from 0 to 40 step 1 {
          transpose input=sbuf(f32, 0, 128, 0 + 512*%k + 20480*turn(%n, 2), [1:128]) out=psum(f32, 0, 128, 0 + 2048*turn(%k, 4), [1:128]) wait [$flip_free] signal [$flip_full]
        }
        nop wait [$turned_full] after signal [$lhs_free]
        loop %k from 0 to 40 step 1 {
          matmul stationary=sbuf(f32, 0, 128, 40960 + 512*%k, [1:128]) moving=sbuf(f32, 0, 128, 61440 + 4096*turn(%k, 4), [1:512]) out=psum(f32, 0, 128, 8192 + 4096*turn(%n, 2), [1:512]) accumulate=no pace=four scales=none when zero 0 + 1*%k wait [$rhs_full, $psum_free]
          matmul stationary=sbuf(f32, 0, 128, 40960 + 512*%k, [1:128]) moving=sbuf(f32, 0, 128, 61440 + 4096*turn(%k, 4), [1:512]) out=psum(f32, 0, 128, 8192 + 4096*turn(%n, 2), [1:512]) accumulate=yes pace=four scales=none when nonzero 0 + 1*%k wait [$rhs_full]
          matmul stationary=sbuf(f32, 0, 128, 40960 + 512*%k, [1:128]) moving=sbuf(f32, 0, 128, 63488 + 4096*turn(%k, 4), [1:512]) out=psum(f32, 0, 128, 10240 + 4096*turn(%n, 2), [1:512]) accumulate=no pace=four scales=none when zero 0 + 1*%k wait [$rhs_full, $psum_free] signal [$rhs_free]
          matmul stationary=sbuf(f32, 0, 128, 40960 + 512*%k, [1:128]) moving=sbuf(f32, 0, 128, 63488 + 4096*turn(%k, 4), [1:512]) out=psum(f32, 0, 128, 10240 + 4096*turn(%n, 2), [1:512]) accumulate=yes pace=four scales=none when nonzero 0 + 1*%k wait [$rhs_full] signal [$rhs_free]
        }
        nop after signal [$psum_full]
      }
    }
  }
  stream vector {
    loop %m from 0 to 32 step 1 {
      loop %n from 0 to 12 step 1 {
        loop %k from 0 to 40 step 1 {
          copy input=psum(f32, 0, 128, 0 + 2048*turn(%k, 4), [1:128]) out=sbuf(f32, 0, 128, 40960 + 512*%k, [1:128]) wait [$flip_full] signal [$flip_free]
        }
        nop after signal [$turned_full]
        nop wait [$psum_full]
        loop %h from 0 to 2 step 1 {
          copy input=psum(f32, 0, 128, 8192 + 2048*%h + 4096*turn(%n, 2), [1:512]) out=sbuf(f32, 0, 128, 77824 + 2048*%h + 4096*turn(%n, 2), [1:512]) wait [$out_free] signal [$psum_free, $out_full]
        }
      }
    }
  }
  stream scalar {
    nop calls [%lhs, %rhs, %result]
    loop %m from 0 to 32 step 1 {
      loop %n from 0 to 12 step 1 {
        loop %h from 0 to 2 step 1 {
          dma f32 [128, 512] from near(sbuf, 0, 77824 + 2048*%h + 4096*turn(%n, 2), [1:0, 0:1]) to far(%result, 0 + 1572864*%m + 1024*%n + 512*%h, [12288, 1]) wait [$out_full] signal [$out_free]
        }
      }
    }
  }
  stream gpsimd {
    nop calls [%lhs, %rhs, %result]
    loop %m from 0 to 32 step 1 {
      loop %n from 0 to 12 step 1 {
        dma f32 [128, 5120] from far(%lhs, 0 + 655360*%m, [5120, 1]) to near(sbuf, 0, 0 + 20480*turn(%n, 2), [1:0, 0:1]) wait [$lhs_free] signal [$lhs_full]
      }
    }
  }
  stream sync {
    nop calls [%lhs, %rhs, %result]
    loop %m from 0 to 32 step 1 {
      loop %n from 0 to 12 step 1 {
        loop %k from 0 to 40 step 1 {
          dma f32 [128, 512] from far(%rhs, 0 + 1024*%n + 1572864*%k, [12288, 1]) to near(sbuf, 0, 61440 + 4096*turn(%k, 4), [1:0, 0:1]) wait [$rhs_free] signal [$rhs_full]
          dma f32 [128, 512] from far(%rhs, 512 + 1024*%n + 1572864*%k, [12288, 1]) to near(sbuf, 0, 63488 + 4096*turn(%k, 4), [1:0, 0:1]) signal [$rhs_full]
        }
      }
    }
  }
}
run {
  call @matmul_row_major(%lhs, %rhs, %result) from ["matmul_row_major"]
}
