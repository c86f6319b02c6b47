//! Names, shapes and places.

use crate::held::{Order, Tree};
use eigenstep::Error;
use eigenstep::tree::Layout;
use ndarray::array;

fn layout(leaves: &[(&str, &[usize])]) -> Layout {
    let mut layout = Layout::new();
    leaves.iter().for_each(|(name, shape)| layout.push(name, shape));
    layout
}

#[test]
fn leaves_follow_each_other_and_are_found_by_name() {
    let made = layout(&[("w", &[2, 3]), ("a", &[]), ("empty", &[0, 4]), ("b", &[5])]);
    let offsets: Vec<_> = made.segments().iter().map(|s| (s.offset, s.numel())).collect();
    assert_eq!(offsets, [(0, 6), (6, 1), (7, 0), (7, 5)]);
    assert_eq!(made.numel(), 12);
    for (i, segment) in made.segments().iter().enumerate() {
        assert_eq!(made.position(&segment.name), Some(i));
        assert_eq!(made.get(&segment.name), Some(segment));
    }
    for unknown in ["", "c", "zz"] {
        assert!(made.get(unknown).is_none() && made.position(unknown).is_none());
    }
    assert_eq!(layout(&[("x", &[1]), ("x", &[2])]).position("x"), Some(0));
    assert_eq!(Layout::single(&[4]).get("").unwrap().shape, [4]);
}

#[test]
fn layouts_of_trees_are_equal_if_names_shapes_and_order_are() {
    let shapes: [&[usize]; 3] = [&[2, 3], &[], &[5]];
    let mut tree = Tree::<f32>::random(&shapes, Order::Spread, 1);
    let expected = layout(&[("a", &[2, 3]), ("b", &[]), ("c", &[5])]);
    assert_eq!(Layout::of(&tree).unwrap(), expected);
    assert_eq!(Layout::of(&mut tree).unwrap(), expected);
    let reversed = Layout::of(&tree.reversed()).unwrap();
    assert_ne!(reversed, expected);
    reversed.check_same(&expected).unwrap();
    tree.0[2].0 = "a".into();
    assert!(matches!(Layout::of(&tree), Err(Error::DuplicateName { name }) if name == "a"));
    assert_eq!(Layout::of(&array![1.0f64]).unwrap(), layout(&[("param", &[1])]));
}

#[test]
fn mismatches_name_the_leaf() {
    let all = layout(&[("a", &[2]), ("b", &[3]), ("c", &[])]);
    let some = layout(&[("c", &[]), ("a", &[2])]);
    some.check_subset(&all).unwrap();
    assert!(matches!(all.check_subset(&some), Err(Error::UnknownLeaf { name }) if name == "b"));
    assert!(matches!(some.check_same(&all), Err(Error::UnknownLeaf { name }) if name == "b"));
    let other = layout(&[("a", &[2, 1])]);
    let error = other.check_subset(&all).unwrap_err();
    assert!(matches!(error, Error::ShapeMismatch { name, .. } if name == "a"));
    Layout::new().check_subset(&some).unwrap();
}
