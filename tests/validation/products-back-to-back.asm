program "back_to_back" for "trn2"
tensor %a: bf16 16384
tensor %b: bf16 65536
tensor %out: f32 65536
input %a
input %b
output "out" = %out
kernel @back_to_back(reads %a: bf16 16384, reads %b: bf16 65536, writes %out: f32 65536) sbuf 3328 psum 1 {
  var %i
  semaphore $a_full = 0
  semaphore $b_full = 0
  semaphore $done = 0
  semaphore $out_full = 0
  source "back_to_back"
  origin "back_to_back"
  stream tensor {
    nop wait [$a_full, $b_full]
    matmul stationary=sbuf(bf16, 0, 128, 0, [1:128]) moving=sbuf(bf16, 0, 128, 256, [1:512]) out=psum(f32, 0, 128, 0, [1:512]) accumulate=no pace=single scales=none
    loop %i from 0 to 2047 step 1 {
      matmul stationary=sbuf(bf16, 0, 128, 0, [1:128]) moving=sbuf(bf16, 0, 128, 256, [1:512]) out=psum(f32, 0, 128, 0, [1:512]) accumulate=yes pace=single scales=none
    }
    nop after signal [$done]
  }
  stream vector {
    nop wait [$done]
    copy input=psum(f32, 0, 128, 0, [1:512]) out=sbuf(f32, 0, 128, 1280, [1:512]) signal [$out_full]
  }
  stream sync {
    nop calls [%a, %b, %out]
    dma bf16 [128, 128] from far(%a, 0, [128, 1]) to near(sbuf, 0, 0, [1:0, 0:1]) signal [$a_full]
    dma bf16 [128, 512] from far(%b, 0, [512, 1]) to near(sbuf, 0, 256, [1:0, 0:1]) signal [$b_full]
    dma f32 [128, 512] from near(sbuf, 0, 1280, [1:0, 0:1]) to far(%out, 0, [512, 1]) wait [$out_full]
  }
}
run {
  call @back_to_back(%a, %b, %out) from ["back_to_back"]
}
