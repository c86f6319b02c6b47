//! A slice of a generic number type as one of `f32`, where the two are the same type.

#![allow(unsafe_code)]

use std::any::TypeId;

/// The same slice, if it is one of `f32`.
pub(super) fn as_f32<R: 'static>(slice: &[R]) -> Option<&[f32]> {
    // SAFETY: the type is the same.
    (TypeId::of::<R>() == TypeId::of::<f32>())
        .then(|| unsafe { &*(std::ptr::from_ref(slice) as *const [f32]) })
}

/// The same slice, if it is one of `f32`.
pub(super) fn as_f32_mut<R: 'static>(slice: &mut [R]) -> Option<&mut [f32]> {
    // SAFETY: the type is the same.
    (TypeId::of::<R>() == TypeId::of::<f32>())
        .then(|| unsafe { &mut *(std::ptr::from_mut(slice) as *mut [f32]) })
}

#[cfg(test)]
mod tests {
    use super::{as_f32, as_f32_mut};

    #[test]
    fn only_the_same_type_passes() {
        assert_eq!(as_f32(&[1.5f32, 2.0]), Some(&[1.5, 2.0][..]));
        assert_eq!(as_f32(&[1.5f64]), None);
        assert_eq!(as_f32(&[1u32]), None);
        let mut values = [1.5f32];
        if let Some([value]) = as_f32_mut(&mut values) {
            *value = 3.0;
        }
        assert_eq!((values, as_f32_mut(&mut [1.5f64])), ([3.0], None));
    }
}
