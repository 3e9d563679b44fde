//! Bodies of any size that exist nowhere: a block repeated, and its digest.

use ring::digest::{Context, SHA256};

/// Length of the block: a multiple of 251, so that a byte lost or doubled shifts all that follow.
pub(crate) const BLOCK_BYTES: u64 = 251 * 256;

/// The block.
pub(crate) fn block() -> Vec<u8> {
    (0..BLOCK_BYTES).map(|i| (i % 251) as u8).collect()
}

/// The lengths of the pieces that make up `total` bytes, each a prefix of the block.
pub(crate) fn pieces(total: u64) -> impl Iterator<Item = usize> {
    let size = |n: u64| usize::try_from(n).expect("at most a block");
    let (whole, rest, block) = (total / BLOCK_BYTES, size(total % BLOCK_BYTES), size(BLOCK_BYTES));
    let full = (0..whole).map(move |_| block);
    full.chain((rest > 0).then_some(rest))
}

/// SHA-256 of `total` bytes of the pattern.
pub(crate) fn digest(total: u64) -> Vec<u8> {
    let block = block();
    let mut context = Context::new(&SHA256);
    for n in pieces(total) {
        context.update(&block[..n]);
    }
    context.finish().as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_add_up() {
        for total in [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 10 * BLOCK_BYTES + 7] {
            assert_eq!(pieces(total).map(|n| n as u64).sum::<u64>(), total);
        }
        assert_ne!(digest(1000), digest(1001));
    }
}
