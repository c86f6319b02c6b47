//! Messages as bytes, also of the kind that nobody has written.

use crate::cases::cases;
use crate::{all, decompressed, vector};
use eigenstep::Error;
use eigenstep::error_feedback::compressor::{Message, Natural};
use eigenstep::numeric::Real;
use proptest::prelude::*;

fn round_trip<R: Real>(seed: u64, rows: usize, columns: usize) {
    let numel = rows * columns;
    for (name, mut compressor) in all::<R>(numel, columns, seed) {
        let message = compressor.compress(seed, &vector(seed, numel));
        let bytes = message.to_bytes();
        let again = Message::<R>::from_bytes(&bytes).unwrap();
        assert_eq!(again, message, "{name}");
        assert_eq!(decompressed(&again), decompressed(&message), "{name}");
        assert_eq!((again.numel(), again.bytes()), (numel, message.bytes()), "{name}");
        // shorter, longer, and for other numbers
        for len in [0, 1, 2, 9, bytes.len() / 2, bytes.len() - 1] {
            refused::<R>(&bytes[..len.min(bytes.len() - 1)]);
        }
        refused::<R>(&[&bytes[..], &[0]].concat());
        let other = if size_of::<R>() == 4 { 8 } else { 4 };
        refused::<R>(&[&[bytes[0], other], &bytes[2..]].concat());
    }
}

fn refused<R: Real>(bytes: &[u8]) {
    match Message::<R>::from_bytes(bytes) {
        Err(Error::Message { .. }) => {}
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn messages_come_back(seed in 0u64..1000, rows in 1usize..12, columns in 1usize..12) {
        round_trip::<f32>(seed, rows, columns);
        round_trip::<f64>(seed, rows, columns);
    }

    /// Whatever is read is what would be written, and can be decompressed.
    #[test]
    fn changed_bytes_do_no_harm(
        seed in 0u64..1000, kind in 0usize..12, place in any::<prop::sample::Index>(), byte in any::<u8>(),
        place2 in 0usize..42, byte2 in any::<u8>(),
    ) {
        let (_, mut compressor) = all::<f32>(60, 10, seed).swap_remove(kind);
        let mut bytes = compressor.compress(1, &vector(seed, 60)).to_bytes();
        let place = place.index(bytes.len());
        bytes[place] = byte;
        harmless(&bytes);
        if let Some(other) = bytes.get_mut(place2) {
            *other = byte2;
        }
        harmless(&bytes);
    }

    #[test]
    fn random_bytes_do_no_harm(kind in 0u8..12, bytes in prop::collection::vec(any::<u8>(), 0..80), small in any::<bool>()) {
        let mut bytes = [&[kind, 4], &bytes[..]].concat();
        if small {
            // sizes that are possible
            bytes.iter_mut().skip(2).take(32).enumerate().filter(|(i, _)| i % 8 > 0).for_each(|(_, b)| *b = 0);
        }
        harmless(&bytes);
    }
}

fn harmless(bytes: &[u8]) {
    if let Ok(message) = Message::<f32>::from_bytes(bytes) {
        assert_eq!(message.to_bytes(), bytes);
        let mut out = [0.0f32; 70];
        message.decompress_into(&mut out);
        assert!(message.bytes() <= bytes.len());
    }
}

fn bytes_of(kind: u8, fields: &[u64], payload: &[u8]) -> Vec<u8> {
    let fields: Vec<u8> = fields.iter().flat_map(|field| field.to_le_bytes()).collect();
    [&[kind, 4], &fields[..], payload].concat()
}

/// Sizes that would fill the memory, or wrap around.
#[test]
fn hostile_sizes_are_errors() {
    let huge = [u64::MAX, u64::MAX / 2, u64::MAX / 4 + 1, 1 << 61, 1 << 40, 1 << 32];
    for kind in 0..12 {
        for size in huge {
            for count in [size, 1, 0] {
                for fields in
                    [vec![size], vec![size, count], vec![size, 1, 1, count], vec![count; 3]]
                {
                    let bytes = bytes_of(kind, &fields, &[0; 8]);
                    if let Ok(message) = Message::<f32>::from_bytes(&bytes) {
                        // few elements of a long vector: no memory for the others
                        message.decompress_into(&mut [0.0; 4]);
                        assert!(message.bytes() <= 16, "{message:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn contradictions_are_errors() {
    let one = 1.0f32.to_le_bytes();
    let nan = f32::NAN.to_le_bytes();
    let sparse = |numel: u64, indices: &[u32]| {
        let payload: Vec<u8> = indices.iter().flat_map(|index| index.to_le_bytes()).collect();
        let values = one.repeat(indices.len());
        bytes_of(1, &[numel, indices.len() as u64], &[payload, values].concat())
    };
    assert!(Message::<f32>::from_bytes(&sparse(5, &[1, 4])).is_ok());
    for (numel, indices) in [(5, [1, 5]), (5, [4, 1]), (5, [1, 1]), (0, [0, 1])] {
        refused::<f32>(&sparse(numel, &indices));
    }
    let blocks = |fields: [u64; 3], indices: &[u16]| {
        let payload: Vec<u8> = indices.iter().flat_map(|index| index.to_le_bytes()).collect();
        let [numel, block, per_block] = fields;
        let fields = [numel, block, per_block, indices.len() as u64];
        bytes_of(2, &fields, &[payload, one.repeat(indices.len())].concat())
    };
    assert!(Message::<f32>::from_bytes(&blocks([7, 4, 2], &[0, 3, 2])).is_ok());
    for (fields, indices) in [
        ([7, 4, 2], &[0, 3, 3][..]),
        ([7, 4, 2], &[3, 0, 2]),
        ([7, 4, 2], &[0, 4, 2]),
        ([7, 4, 2], &[0, 3]),
        ([7, 4, 2], &[0]),
        ([8, 4, 2], &[0, 1, 2]),
        ([7, 4, 2], &[0, 3, 0, 1, 2]),
        ([7, 0, 2], &[0, 3, 2]),
        ([7, 4, 0], &[0, 3, 2]),
        ([7, 4, 5], &[0, 3, 2]),
        ([7, 70_000, 2], &[0, 3]),
    ] {
        refused::<f32>(&blocks(fields, indices));
    }
    refused::<f32>(&bytes_of(0, &[1], &nan));
    refused::<f32>(&bytes_of(3, &[0, 0, 0, 1], &one));
    refused::<f32>(&bytes_of(4, &[3], &[&(-1.0f32).to_le_bytes()[..], &[1]].concat()));
    refused::<f32>(&bytes_of(4, &[3], &[&one[..], &[8]].concat()));
    // levels: none; a code beyond the last
    refused::<f32>(&bytes_of(5, &[3, 0], &[&one[..], &[0]].concat()));
    refused::<f32>(&bytes_of(5, &[2, 1], &[&one[..], &[3]].concat()));
    // exponents: infinity, and a zero with a sign
    refused::<f32>(&bytes_of(6, &[1], &[255, 0]));
    refused::<f32>(&bytes_of(6, &[1], &[0, 1]));
    // factors of no column, and of more than the matrix has
    refused::<f32>(&bytes_of(7, &[2, 2, 0], &[]));
    refused::<f32>(&bytes_of(7, &[1, 1, 2], &one.repeat(4)));
    // halves that are infinite
    refused::<f32>(&bytes_of(8, &[1], &[0x80, 0x7f]));
    refused::<f32>(&bytes_of(9, &[1], &[0x01, 0xfc]));
    refused::<f32>(&bytes_of(200, &[1], &one));
}

/// The table of the documentation.
#[test]
fn payloads_have_their_size() {
    // 100 elements, 10 × 10; k = 20; 7 blocks of 16, of 4 elements each, the last of 1
    let expected = [400, 160, 25 * 6, 160, 160, 80, 80, 13 + 4, 63 + 4];
    for ((name, mut compressor), expected) in all::<f32>(100, 10, 1).into_iter().zip(expected) {
        assert_eq!(compressor.compress(1, &vector(1, 100)).bytes(), expected, "{name}");
    }
    let expected = [113, 4 * 2 * 20, 200, 200];
    for ((name, mut compressor), expected) in
        all::<f32>(100, 10, 1).into_iter().skip(9).zip(expected)
    {
        assert_eq!(compressor.compress(1, &vector(1, 100)).bytes(), expected, "{name}");
    }
    assert_eq!((Natural::width::<f32>(), Natural::width::<f64>()), (9, 12));
}
