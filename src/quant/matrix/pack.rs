//! Codes of 3, 4 and 8 bits in bytes, the first code in the lowest bits.

use crate::quant::tile::TILE;

/// Packs the codes of one tile; `bytes` may be shorter than a whole tile's, and gets the first ones.
#[inline(always)]
pub(super) fn pack<const BITS: usize>(codes: &[u8; TILE], bytes: &mut [u8]) {
    match BITS {
        3 => {
            for (bytes, codes) in bytes.chunks_mut(3).zip(codes.as_chunks::<8>().0) {
                let word = codes.iter().rev().fold(0, |word, code| word << 3 | u32::from(*code));
                for (byte, packed) in bytes.iter_mut().zip(word.to_le_bytes()) {
                    *byte = packed;
                }
            }
        }
        4 => {
            for (byte, [low, high]) in bytes.iter_mut().zip(codes.as_chunks::<2>().0) {
                *byte = low | high << 4;
            }
        }
        _ => {
            for (byte, code) in bytes.iter_mut().zip(codes) {
                *byte = *code;
            }
        }
    }
}

/// Undoes [`pack`]; codes beyond the bytes are left as they are.
#[inline(always)]
pub(super) fn unpack<const BITS: usize>(bytes: &[u8], codes: &mut [u8; TILE]) {
    match BITS {
        3 => {
            for (codes, bytes) in codes.as_chunks_mut::<8>().0.iter_mut().zip(bytes.chunks(3)) {
                let word = bytes.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
                *codes = std::array::from_fn(|k| (word >> (3 * k)) as u8 & 7);
            }
        }
        4 => {
            for ([low, high], byte) in codes.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
                (*low, *high) = (byte & 15, byte >> 4);
            }
        }
        _ => {
            for (code, byte) in codes.iter_mut().zip(bytes) {
                *code = *byte;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_code_lies_in_the_lowest_bits() {
        let mut codes = [0; TILE];
        codes[..9].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 0, 5]);
        let (mut three, mut four) = ([0xff; 4], [0xff; 5]);
        pack::<3>(&codes, &mut three);
        pack::<4>(&codes, &mut four);
        assert_eq!(three, [0b1101_0001, 0b0101_1000, 0b0001_1111, 5]);
        assert_eq!(four, [0x21, 0x43, 0x65, 0x07, 0x05]);
        let mut again = [0; TILE];
        unpack::<3>(&three, &mut again);
        assert_eq!(again, codes);
        unpack::<4>(&four, &mut again);
        assert_eq!(again, codes);
    }
}
