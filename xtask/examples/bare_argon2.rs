//! What a password costs when nothing is around it: Argon2id as `modelyard` computes it, on every core.
//! The floor that `cargo xtask bench auth` compares logins with.
//!
//! Usage: `bare_argon2 SECONDS`. Prints how many it computed, and in how many seconds.

#![expect(clippy::print_stdout, reason = "its answer")]

use std::{
    env,
    error::Error,
    thread,
    time::{Duration, Instant},
};

use argon2::{Algorithm, Argon2, Block, Params, Version};
use modelyard_access::password::Cost;

fn main() -> Result<(), Box<dyn Error>> {
    let seconds = env::args().nth(1).ok_or("usage: bare_argon2 SECONDS")?.parse()?;
    let time = Duration::from_secs(seconds);
    let Cost { memory_kib, passes, lanes } = Cost::default();
    let params = Params::new(memory_kib, passes, lanes, None)?;
    let blocks = params.block_count();
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let began = Instant::now();
    let compute = || {
        // The same memory each time, which nobody has to give and to clear.
        let (mut memory, mut hash) = (vec![Block::default(); blocks], [0; 32]);
        let mut computed = 0_u64;
        while began.elapsed() < time {
            let salt = computed.to_le_bytes();
            argon
                .hash_password_into_with_memory(b"any password", &salt, &mut hash, &mut memory)
                .expect("Argon2 has such a cost");
            computed += 1;
        }
        computed
    };
    let cores = thread::available_parallelism()?.get();
    let computed: u64 = thread::scope(|scope| {
        let all: Vec<_> = (0..cores).map(|_| scope.spawn(compute)).collect();
        all.into_iter().map(|it| it.join().expect("computing does not panic")).sum()
    });
    println!("{computed} {}", began.elapsed().as_secs_f64());
    Ok(())
}
