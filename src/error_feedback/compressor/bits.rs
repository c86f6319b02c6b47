//! Packing of small integers, without gaps.

/// Packs codes of `width <= 32` bits, the first in the lowest bits of the first byte.
pub(super) fn pack(codes: impl Iterator<Item = u32>, width: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity((codes.size_hint().0 * width as usize).div_ceil(8));
    let (mut held, mut filled) = (0u64, 0);
    for code in codes {
        held |= u64::from(code) << filled;
        filled += width;
        while filled >= 8 {
            bytes.push(held as u8);
            held >>= 8;
            filled -= 8;
        }
    }
    if filled > 0 {
        bytes.push(held as u8);
    }
    bytes
}

/// The codes in the bytes. The padding of the last byte may add a few more at the end.
pub(super) fn unpack(bytes: &[u8], width: u32) -> impl Iterator<Item = u32> + '_ {
    let mut bytes = bytes.iter();
    let (mut held, mut filled) = (0u64, 0);
    std::iter::from_fn(move || {
        while filled < width {
            held |= u64::from(*bytes.next()?) << filled;
            filled += 8;
        }
        let code = held & ((1 << width) - 1);
        held >>= width;
        filled -= width;
        Some(code as u32)
    })
}

/// Bytes of `numel` codes; `None` if there are too many to be counted.
pub(super) fn packed_len(numel: usize, width: u32) -> Option<usize> {
    Some(numel.checked_mul(width as usize)?.div_ceil(8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_come_back() {
        for width in 1..=32 {
            let mask = ((1u64 << width) - 1) as u32;
            let codes: Vec<u32> = (0..37u32).map(|i| i.wrapping_mul(0x9E37_79B9) & mask).collect();
            let bytes = pack(codes.iter().copied(), width);
            assert_eq!(Some(bytes.len()), packed_len(codes.len(), width));
            assert_eq!(unpack(&bytes, width).take(codes.len()).collect::<Vec<_>>(), codes);
        }
    }
}
