// SPDX-License-Identifier: Apache-2.0
// The Rust build: closures, iterators, a trait object, a panic that is caught with work in drops.
use std::hint::black_box;
use std::time::{Duration, Instant};

#[inline(never)]
#[no_mangle]
pub fn rust_leaf() {
    let end = Instant::now() + Duration::from_micros(500);
    let mut x: u64 = 88172645463325252;
    while Instant::now() < end {
        for _ in 0..5000 {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x = black_box(x);
        }
    }
}

struct WorksAtEnd;
impl Drop for WorksAtEnd {
    fn drop(&mut self) {
        rust_leaf();
    }
}

pub trait Step {
    fn step(&self, depth: u32);
}
struct Deep;
impl Step for Deep {
    #[inline(never)]
    fn step(&self, depth: u32) {
        rust_step(self, depth);
        black_box(depth);
    }
}

#[inline(never)]
#[no_mangle]
pub fn rust_step(next: &dyn Step, depth: u32) {
    if depth == 0 {
        rust_leaf();
    } else {
        next.step(depth - 1);
    }
    black_box(depth);
}

#[inline(never)]
#[no_mangle]
pub fn rust_panic(depth: u32) {
    let _at_end = WorksAtEnd;
    if depth == 0 {
        std::panic::resume_unwind(Box::new(depth));
    }
    rust_panic(depth - 1);
    black_box(depth);
}

#[inline(never)]
#[no_mangle]
pub fn rust_root() {
    rust_step(&Deep, 5);
    let _ = black_box(std::panic::catch_unwind(|| rust_panic(3)));
    let mut numbers: Vec<u32> = (0..50).map(|i| i * 7919 % 101).collect();
    numbers.sort_by(|a, b| {
        for _ in 0..1000 {
            black_box(a);
        }
        a.cmp(b)
    });
    black_box(&numbers);
}

fn main() {
    let seconds: f64 = std::env::args().nth(2).and_then(|s| s.parse().ok()).unwrap_or(1.0);
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    while Instant::now() < end {
        rust_root();
    }
}
