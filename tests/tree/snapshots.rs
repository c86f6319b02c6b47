//! A snapshot and its restoration are the identity, to the bit.

use crate::cases::cases;
use crate::every_type;
use crate::held::{ORDERS, Order, Tree, any_bits, bits};
use crate::threads::on_threads;
use eigenstep::Error;
use eigenstep::numeric::Element;
use eigenstep::params::{Flat, FlatMut, Select};
use eigenstep::tree::{Snapshot, copy, distance, fill};
use ndarray::{Array1, array};
use proptest::prelude::*;

/// Scalars, empty arrays, vectors, matrices whose rows are longer than what is read at once.
const SHAPES: [&[usize]; 8] =
    [&[], &[0], &[1], &[3, 0, 2], &[17], &[1, 5, 3], &[3, 2100], &[2, 3, 2, 2, 2]];

fn restores<T: Element>(shapes: &[&[usize]], order: Order, seed: u64) {
    let value = |leaf: usize, i: usize| any_bits::<T>(seed + leaf as u64, i);
    let mut params = Tree::new(shapes, order, value);
    let before = params.bits();
    let mut snapshot = Snapshot::take(&mut params).unwrap();
    assert_eq!(bits(snapshot.tree().values()), before);
    assert_eq!(snapshot.tree().bytes(), before.len());
    fill(3.0, &mut params).unwrap();
    snapshot.restore(&mut params).unwrap();
    assert_eq!(params.bits(), before, "{order:?} {shapes:?}");
    // other memory, and leaves in another order
    for other in ORDERS {
        let mut elsewhere = Tree::new(shapes, other, |_, _| T::default()).reversed();
        snapshot.restore(&mut elsewhere).unwrap();
        assert_eq!(elsewhere.reversed().bits(), before, "{order:?} to {other:?}");
    }
    // taken again in place of the first
    let mut next = Tree::new(shapes, order, |leaf, i| any_bits::<T>(seed + 99 + leaf as u64, i));
    let after = next.bits();
    snapshot.retake(&mut next).unwrap();
    snapshot.restore(&mut params).unwrap();
    assert_eq!(params.bits(), after);
    // pieces are handed out with their places
    snapshot
        .restore_with(&mut params, |leaf, offset, before, out| {
            assert_eq!(before.len(), out.len());
            for (i, out) in (offset..).zip(out) {
                *out = value(leaf, i);
            }
        })
        .unwrap();
    assert_eq!(params.bits(), before);
}

#[test]
fn every_type_and_memory_order_is_restored_to_the_bit() {
    for (seed, order) in (0..).zip(ORDERS) {
        every_type!(restores(&SHAPES, order, seed));
    }
}

proptest! {
    #![proptest_config(cases(24))]
    #[test]
    fn any_shape_is_restored(
        dims in prop::collection::vec(0usize..6, 0..5), order in 0usize..3, seed in 0u64..1000,
    ) {
        let shapes: [&[usize]; 2] = [&dims, &[7]];
        every_type!(restores(&shapes, ORDERS[order], seed));
    }
}

#[test]
fn large_leaves_are_restored_on_all_threads() {
    // so many bytes that they are written past the cache
    let numel = (32 << 20) / 4 + 13;
    let value = |i: usize| any_bits::<f32>(5, i);
    let mut params = (Array1::from_iter((0..numel).map(value)), array![1.0f32, f32::NAN]);
    let before = (bits(params.0.as_slice().unwrap()), bits(params.1.as_slice().unwrap()));
    for threads in [1, 2, 3, 7] {
        on_threads(threads, || {
            let snapshot = Snapshot::take(&mut params).unwrap();
            fill(0.0, &mut params).unwrap();
            snapshot.restore(&mut params).unwrap();
            assert_eq!(bits(params.0.as_slice().unwrap()), before.0);
            assert_eq!(bits(params.1.as_slice().unwrap()), before.1);
            snapshot
                .restore_with(&mut params, |leaf, offset, _, out| {
                    out.iter_mut().zip(offset..).for_each(|(x, i)| *x = (leaf + i) as f32);
                })
                .unwrap();
            assert!(params.0.iter().enumerate().all(|(i, &x)| x == i as f32));
            snapshot.restore(&mut params).unwrap();
        });
    }
}

#[test]
fn selected_leaves_alone_are_copied_and_restored() {
    let shapes: [&[usize]; 3] = [&[40, 3], &[5], &[2, 2]];
    for order in ORDERS {
        let mut params = Tree::<f32>::random(&shapes, order, 1);
        let before = params.values();
        let mut snapshot = Snapshot::only(Select::name("b").or(Select::name("c")));
        snapshot.retake(&mut params).unwrap();
        assert_eq!(snapshot.tree().bytes(), 4 * 9);
        fill(0.5, &mut params).unwrap();
        snapshot.restore(&mut params).unwrap();
        let mut expected = vec![0.5; 120];
        expected.extend(&before[120..]);
        assert_eq!(params.values(), expected);
        fill(0.25, &mut params).unwrap();
        let mut reversed = params.reversed();
        snapshot.restore(&mut reversed).unwrap();
        expected[..120].fill(0.25);
        assert_eq!(reversed.reversed().values(), expected);
    }
    let error = Snapshot::only(Select::name("z")).retake(&mut array![1.0f32]).unwrap_err();
    assert!(matches!(error, Error::EmptyGroup { select, .. } if select == "z"));
}

#[test]
fn a_snapshot_can_be_read() {
    let mut w = array![1.0f32, 2.0];
    let snapshot = Snapshot::take(&mut w).unwrap();
    w += 3.0;
    assert_eq!(distance(&w, &snapshot).unwrap(), 18f64.sqrt());
    copy(&snapshot, &mut w).unwrap();
    assert_eq!(w, array![1.0, 2.0]);
}

#[test]
fn what_does_not_fit_changes_nothing() {
    let mut params = (array![1.0f32, 2.0], array![3.0f32]);
    let mut snapshot = Snapshot::take(&mut params).unwrap();

    let mut fewer = vec![array![7.0f32, 7.0]];
    let error = snapshot.restore(&mut fewer).unwrap_err();
    assert!(matches!(error, Error::MissingParameter { name } if name == "1"));
    assert_eq!(fewer, [array![7.0, 7.0]]);

    let mut more = vec![array![7.0f32, 7.0], array![7.0], array![7.0]];
    let error = snapshot.restore(&mut more).unwrap_err();
    assert_eq!(error.to_string(), "leaf `2` of one tree is not in the other");
    assert!(matches!(error, Error::UnknownLeaf { name } if name == "2"));
    assert!(more.iter().all(|leaf| leaf.iter().all(|&x| x == 7.0)));

    let mut other = (array![7.0f32, 7.0], array![7.0f32, 7.0]);
    let error = snapshot.restore_with(&mut other, |_, _, _, _| panic!("not called")).unwrap_err();
    assert!(matches!(error, Error::ShapeMismatch { name, .. } if name == "1"));
    assert_eq!(other, (array![7.0, 7.0], array![7.0, 7.0]));

    let short = &mut [7.0f32; 3];
    let error = snapshot.retake(&mut FlatMut::new(short, &[2, 2])).unwrap_err();
    assert!(matches!(error, Error::LengthMismatch { name, .. } if name == "param"));
    let mut twice = Tree::<f32>::random(&[&[2], &[2]], Order::RowMajor, 1);
    twice.0[1].0 = "a".into();
    let error = snapshot.retake(&mut twice).unwrap_err();
    assert!(matches!(error, Error::DuplicateName { name } if name == "a"));
    // the snapshot is the old one
    snapshot.restore(&mut params).unwrap();
    assert_eq!(params, (array![1.0, 2.0], array![3.0]));
    assert_eq!(snapshot.tree().values(), [1.0, 2.0, 3.0]);
    // before anything was taken there is nothing to restore
    assert!(matches!(Snapshot::new().restore(&mut params), Err(Error::UnknownLeaf { .. })));
    assert!(
        distance(&snapshot, &(Flat::new(&[1.0f32, 2.0], &[2]), array![3.0f32])).unwrap() == 0.0
    );
}
