//! The entry points of libFuzzer: our checks, and our damage beside its own.

/// Makes a fuzzer of the target with this name.
#[macro_export]
macro_rules! target {
    ($name:literal) => {
        libfuzzer_sys::fuzz_target!(|input: &[u8]| {
            ($crate::target($name).check)(input);
        });

        libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max: usize, seed: u32| {
            match $crate::damage($name, &data[..size], seed) {
                Some(damaged) => {
                    let length = damaged.len().min(max);
                    data[..length].copy_from_slice(&damaged[..length]);
                    length
                }
                None => libfuzzer_sys::fuzzer_mutate(data, size, max),
            }
        });
    };
}
