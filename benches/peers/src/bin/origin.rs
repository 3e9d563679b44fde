//! The origin of the benchmark by itself, to try a proxy by hand: prints its addresses and serves until it is killed. `origin CORE`.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let core = std::env::args().nth(1).ok_or("usage: origin CORE")?.parse()?;
    let origin = peers::origin::Origin::start(core)?;
    println!("{} {} {} {}", origin.stable, origin.candidate, origin.grpc_stable, origin.grpc_candidate);
    loop {
        std::thread::park();
    }
}
