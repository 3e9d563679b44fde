//! Micro-benchmarks: what one request costs, piece by piece. A file per subject in `micro/`; add a line to `main` for each.

use criterion::Criterion;

mod micro {
    //! The subjects.

    pub(crate) mod dial;
    pub(crate) mod gate;
    pub(crate) mod gates;
    pub(crate) mod head;
    pub(crate) mod route;
    pub(crate) mod variant;
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    micro::dial::benches(&mut criterion);
    micro::gate::benches(&mut criterion);
    micro::gates::benches(&mut criterion);
    micro::head::benches(&mut criterion);
    micro::route::benches(&mut criterion);
    micro::variant::benches(&mut criterion);
    criterion.final_summary();
}
