//! Two 4-bit codes per byte, the first one in the high half (as torchao stores them).

/// Packs codes below 16 in pairs: byte `i` is `16·codes[2i] + codes[2i+1]`.
///
/// `bytes` must hold `codes.len().div_ceil(2)` bytes; an odd last code is padded with 0.
#[inline(always)] // into kernels, to be compiled for their instruction set
pub fn pack_nibbles(codes: &[u8], bytes: &mut [u8]) {
    let (pairs, rest) = codes.as_chunks::<2>();
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = high << 4 | low;
    }
    if let ([high], Some(byte)) = (rest, bytes.get_mut(pairs.len())) {
        *byte = high << 4;
    }
}

/// Undoes [`pack_nibbles`] for `codes.len()` codes.
#[inline(always)]
pub fn unpack_nibbles(bytes: &[u8], codes: &mut [u8]) {
    let (pairs, rest) = codes.as_chunks_mut::<2>();
    for ([high, low], byte) in pairs.iter_mut().zip(bytes) {
        (*high, *low) = (byte >> 4, byte & 15);
    }
    if let ([high], Some(byte)) = (rest, bytes.last()) {
        *high = byte >> 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_code_lies_in_the_high_half() {
        let mut bytes = [0xff; 2];
        pack_nibbles(&[1, 2, 3], &mut bytes);
        assert_eq!(bytes, [0x12, 0x30]);
        let mut codes = [9; 3];
        unpack_nibbles(&bytes, &mut codes);
        assert_eq!(codes, [1, 2, 3]);
    }
}
