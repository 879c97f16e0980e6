//! Single kernels on one thread: products of several shapes on each instruction set that the machine has, and what is
//! bound by memory or by functions.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::time::Duration;
use systole::Model;
use systole_bench::Ready;

fn ready(text: &str, cpu: Option<&str>) -> Option<Ready> {
    let model = Model::from_text(text).expect("the text is right");
    match Ready::new(&model, 1, cpu) {
        Ok(ready) => Some(ready),
        // The machine lacks the instruction set.
        Err(_) if cpu.is_some() => None,
        Err(error) => panic!("{error}"),
    }
}

fn measure(c: &mut Criterion, group: &str, name: &str, amount: Throughput, ready: &mut Ready) {
    let mut group = c.benchmark_group(group);
    group.sample_size(10);
    group.warm_up_time(Duration::from_millis(100));
    group.measurement_time(Duration::from_millis(400));
    group.throughput(amount);
    group.bench_function(name, |bencher| bencher.iter(|| ready.run().expect("it ran before")));
    group.finish();
}

/// Products of two inputs, so that packing counts, in multiplications a second.
fn products(c: &mut Criterion) {
    for [m, n, k] in
        [[64, 64, 64], [256, 256, 256], [512, 512, 512], [1, 768, 3072], [128, 768, 768]]
    {
        let text = format!(
            "func @main(%a: f32[{m}, {k}], %b: f32[{k}, {n}]) -> (y: f32[{m}, {n}]) {{
               %y = contract %a, %b {{batch = [], over = [[1, 0]], accumulate = f32, dtype = f32}}
               return %y }}"
        );
        for cpu in ["sse", "neon", "avx2", "avx512"] {
            let Some(mut ready) = ready(&text, Some(cpu)) else { continue };
            let amount = Throughput::Elements((m * n * k) as u64);
            measure(c, "product", &format!("{m}x{n}x{k}/{cpu}"), amount, &mut ready);
        }
    }
}

/// Kernels over a matrix of 512 rows, in bytes read a second.
fn rows(c: &mut Criterion) {
    for (name, body) in [
        ("exp", "%y = exp %x"),
        ("gelu", "%y = gelu %x"),
        ("softmax", "%y = softmax %x {axis = 1}"),
        ("sum", "%y: f32[512] = reduce %x {combine = sum, axes = [1], accumulate = f32}"),
        ("transpose", "%y = transpose %x {perm = [1, 0]}"),
        ("concat", "%y = concat %x, %x {axis = 1}"),
    ] {
        let ty = match name {
            "sum" => "f32[512]",
            "transpose" => "f32[768, 512]",
            "concat" => "f32[512, 1536]",
            _ => "f32[512, 768]",
        };
        let text = format!("func @main(%x: f32[512, 768]) -> (y: {ty}) {{ {body} return %y }}");
        let mut ready = ready(&text, None).expect("the best instruction set is there");
        measure(c, "rows", name, Throughput::Bytes(512 * 768 * 4), &mut ready);
    }
}

criterion_group!(benches, products, rows);
criterion_main!(benches);
