program "back_to_back" for "trn2"
tensor %a: bf16 16384
tensor %b: bf16 65536
tensor %out: f32 65536
input %a
input %b
output "out" = %out
kernel @back_to_back(reads %a: bf16 16384, reads %b: bf16 65536, writes %out: f32 65536) sbuf 9472 psum 4 {
  var %i
  semaphore $a_full = 0
  semaphore $b_full = 0
  semaphore $done = 0
  semaphore $out_full = 0
  source "back_to_back"
  origin "back_to_back"
  stream tensor {
    nop wait [$a_full, $b_full]
    matmul stationary=sbuf(bf16, 0, 128, 0, [1:32]) moving=sbuf(bf16, 0, 128, 256, [1:512]) out=psum(f32, 0, 32, 0, [1:512]) accumulate=no pace=single scales=none
    loop %i from 0 to 511 step 1 {
      matmul stationary=sbuf(bf16, 0, 128, 0, [1:32]) moving=sbuf(bf16, 0, 128, 256, [1:512]) out=psum(f32, 0, 32, 0, [1:512]) accumulate=yes pace=single scales=none
    }
    matmul stationary=sbuf(bf16, 0, 128, 0, [1:128]) moving=sbuf(bf16, 0, 128, 256, [1:64]) out=psum(f32, 0, 128, 2048, [1:64]) accumulate=no pace=single scales=none
    loop %i from 0 to 511 step 1 {
      matmul stationary=sbuf(bf16, 0, 128, 0, [1:128]) moving=sbuf(bf16, 0, 128, 256, [1:64]) out=psum(f32, 0, 128, 2048, [1:64]) accumulate=yes pace=single scales=none
    }
    matmul stationary=sbuf(bf16, 0, 32, 0, [1:128]) moving=sbuf(bf16, 0, 32, 256, [1:512]) out=psum(f32, 0, 128, 4096, [1:512]) accumulate=no pace=single scales=none
    loop %i from 0 to 511 step 1 {
      matmul stationary=sbuf(bf16, 0, 32, 0, [1:128]) moving=sbuf(bf16, 0, 32, 256, [1:512]) out=psum(f32, 0, 128, 4096, [1:512]) accumulate=yes pace=single scales=none
    }
    matmul stationary=sbuf(bf16, 0, 128, 0, [1:128]) moving=sbuf(bf16, 0, 128, 256, [1:512]) out=psum(f32, 0, 128, 6144, [1:512]) accumulate=no pace=single scales=none
    loop %i from 0 to 511 step 1 {
      matmul stationary=sbuf(bf16, 0, 128, 0, [1:128]) moving=sbuf(bf16, 0, 128, 256, [1:512]) out=psum(f32, 0, 128, 6144, [1:512]) accumulate=yes pace=single scales=none
    }
    nop after signal [$done]
  }
  stream vector {
    nop wait [$done]
    copy input=psum(f32, 0, 32, 0, [1:512]) out=sbuf(f32, 0, 32, 1280, [1:512])
    copy input=psum(f32, 0, 128, 2048, [1:64]) out=sbuf(f32, 0, 128, 3328, [1:64])
    copy input=psum(f32, 0, 128, 4096, [1:512]) out=sbuf(f32, 0, 128, 5376, [1:512])
    copy input=psum(f32, 0, 128, 6144, [1:512]) out=sbuf(f32, 0, 128, 7424, [1:512]) signal [$out_full]
  }
  stream sync {
    nop calls [%a, %b, %out]
    dma bf16 [128, 128] from far(%a, 0, [128, 1]) to near(sbuf, 0, 0, [1:0, 0:1]) signal [$a_full]
    dma bf16 [128, 512] from far(%b, 0, [512, 1]) to near(sbuf, 0, 256, [1:0, 0:1]) signal [$b_full]
    dma f32 [128, 512] from near(sbuf, 0, 7424, [1:0, 0:1]) to far(%out, 0, [512, 1]) wait [$out_full]
  }
}
run {
  call @back_to_back(%a, %b, %out) from ["back_to_back"]
}
