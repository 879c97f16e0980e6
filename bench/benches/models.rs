//! Whole models from the examples, on one thread and on two, and their compilation.

use criterion::{Criterion, criterion_group, criterion_main};
use std::path::Path;
use std::time::Duration;
use systole::{Compiler, Model};
use systole_bench::Ready;

const GRAPHS: [&str; 3] = ["mlp", "attention", "llama"];

fn graph(name: &str) -> Model {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/graphs");
    Model::from_path(folder.join(format!("{name}.tir"))).expect("the example is there")
}

fn runs(c: &mut Criterion) {
    for name in GRAPHS {
        let mut group = c.benchmark_group(name);
        group.sample_size(10).warm_up_time(Duration::from_millis(100));
        group.measurement_time(Duration::from_millis(400));
        for threads in [1, 2] {
            let mut ready = Ready::new(&graph(name), threads, None).expect("it compiles");
            group.bench_function(format!("{threads} threads"), |bencher| {
                bencher.iter(|| ready.run().expect("it ran before"));
            });
        }
        group.bench_function("compile", |bencher| {
            let model = graph(name);
            bencher
                .iter(|| Compiler::new().threads(1).compile(&model).expect("it compiled before"));
        });
        group.finish();
    }
}

criterion_group!(benches, runs);
criterion_main!(benches);
