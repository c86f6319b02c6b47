//! Configurations and state dicts in text formats: typing errors in the names of fields, numbers that JSON cannot
//! write, presets by their names.

// Floor 0.

/// Numbers of a text format: infinities and NaN, for which JSON has no number, are the words `inf`, `-inf` and
/// `NaN`. For `#[serde(with = "crate::config_file::number")]`.
#[cfg(feature = "serde")]
pub(crate) mod number {
    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};
    use std::fmt;

    pub(crate) fn serialize<S: Serializer>(x: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        match serializer.is_human_readable() && !x.is_finite() {
            true => serializer.serialize_str(&x.to_string()),
            false => serializer.serialize_f64(*x),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        match from.is_human_readable() {
            true => from.deserialize_any(Number),
            false => from.deserialize_f64(Number),
        }
    }

    struct Number;

    impl Visitor<'_> for Number {
        type Value = f64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a number, or `inf`, `-inf` or `NaN`")
        }
        fn visit_f64<E: Error>(self, x: f64) -> Result<f64, E> {
            Ok(x)
        }
        fn visit_u64<E: Error>(self, x: u64) -> Result<f64, E> {
            Ok(x as f64)
        }
        fn visit_i64<E: Error>(self, x: i64) -> Result<f64, E> {
            Ok(x as f64)
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<f64, E> {
            let number = text.parse::<f64>().ok().filter(|x| !x.is_finite());
            number.ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
        }
    }
}

/// Numbers in a list, as [`number`] has them.
#[cfg(feature = "serde")]
pub(crate) mod numbers {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Number(#[serde(with = "crate::config_file::number")] f64);

    pub(crate) fn serialize<S: Serializer>(list: &[f64], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(list.iter().copied().map(Number))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f64>, D::Error> {
        let list = Vec::<Number>::deserialize(from)?;
        Ok(list.into_iter().map(|Number(x)| x).collect())
    }
}

/// `other`, or the default of `D` if that is its type: defaults of one inner rule among others.
#[cfg(feature = "serde")]
pub(crate) fn default_or<D: Default + 'static, C: 'static>(mut other: C) -> C {
    if let Some(own) = (&mut other as &mut dyn std::any::Any).downcast_mut::<D>() {
        *own = D::default();
    }
    other
}

/// Makes the presets of a type known by their names, where `#[serde(remote = "Self")]` is derived, which names the
/// functions that read and write fields. Written are always the fields.
macro_rules! presets {
    ($type:ty, [$($preset:ident),* $(,)?]) => {
        #[cfg(feature = "serde")]
        impl $crate::config_file::Presets for $type {
            const PRESETS: &'static [(&'static str, Self)] =
                &[$((stringify!($preset), Self::$preset)),*];

            fn fields<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                <$type>::deserialize($crate::config_file::Named(from))
            }
        }

        #[cfg(feature = "serde")]
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<From: serde::Deserializer<'de>>(from: From) -> Result<Self, From::Error> {
                $crate::config_file::preset_or_fields(from)
            }
        }

        #[cfg(feature = "serde")]
        impl serde::Serialize for $type {
            fn serialize<To: serde::Serializer>(&self, to: To) -> Result<To::Ok, To::Error> {
                <$type>::serialize(self, to)
            }
        }
    };
}
pub(crate) use presets;

/// A type with presets that configuration files may name.
#[cfg(feature = "serde")]
pub(crate) trait Presets: Copy + 'static {
    /// Names and values.
    const PRESETS: &'static [(&'static str, Self)];

    /// Reads a value field by field.
    fn fields<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error>;
}

/// Reads a preset by its name, or a value field by field.
#[cfg(feature = "serde")]
pub(crate) fn preset_or_fields<'de, D, P>(from: D) -> Result<P, D::Error>
where
    D: serde::Deserializer<'de>,
    P: Presets,
{
    match from.is_human_readable() {
        true => from.deserialize_any(name::NameOrFields(std::marker::PhantomData)),
        false => P::fields(from),
    }
}

#[cfg(feature = "serde")]
mod name {
    use crate::config_file::Presets;
    use crate::error::nearest;
    use serde::de::value::{MapAccessDeserializer, StrDeserializer};
    use serde::de::{Error, MapAccess, Visitor};
    use std::fmt;
    use std::marker::PhantomData;

    pub(crate) struct NameOrFields<P>(pub PhantomData<P>);

    impl<'de, P: Presets> Visitor<'de> for NameOrFields<P> {
        type Value = P;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let names: Vec<&str> = P::PRESETS.iter().map(|(name, _)| *name).collect();
            write!(f, "the name of a preset ({}), or fields", names.join(", "))
        }
        fn visit_str<E: Error>(self, name: &str) -> Result<P, E> {
            let presets = || P::PRESETS.iter().map(|(preset, _)| *preset);
            if let Some((_, preset)) = P::PRESETS.iter().find(|(preset, _)| *preset == name) {
                return Ok(*preset);
            }
            P::fields(StrDeserializer::new(name)).map_err(|error: E| {
                match nearest(name, presets()) {
                    Some(near) => E::custom(format!("unknown `{name}`, did you mean `{near}`?")),
                    None => E::custom(format!(
                        "{error}, or a preset: {}",
                        presets().collect::<Vec<_>>().join(", ")
                    )),
                }
            })
        }
        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<P, A::Error> {
            P::fields(MapAccessDeserializer::new(map))
        }
    }
}

/// Refuses unknown fields of a structure with the name that was probably meant, where `#[serde(remote = "Self")]` is
/// derived, which names the functions that read and write fields.
macro_rules! named_fields {
    ($type:ty $(, $inner:ident)?) => {
        #[cfg(feature = "serde")]
        impl<'de $(, $inner: Default + serde::Deserialize<'de> + 'static)?> serde::Deserialize<'de> for $type {
            fn deserialize<From: serde::Deserializer<'de>>(from: From) -> Result<Self, From::Error> {
                <$type>::deserialize($crate::config_file::Named(from))
            }
        }

        #[cfg(feature = "serde")]
        impl$(<$inner: serde::Serialize>)? serde::Serialize for $type {
            fn serialize<To: serde::Serializer>(&self, to: To) -> Result<To::Ok, To::Error> {
                <$type>::serialize(self, to)
            }
        }
    };
}
pub(crate) use named_fields;

#[cfg(feature = "serde")]
pub(crate) use fields::Named;

#[cfg(feature = "serde")]
mod fields {
    use crate::error::nearest;
    use serde::de::{
        DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, SeqAccess, Visitor,
    };
    use std::fmt;

    /// Reads a structure, and knows the names of its fields.
    pub(crate) struct Named<D>(pub D);

    impl<'de, D: Deserializer<'de>> Deserializer<'de> for Named<D> {
        type Error = D::Error;

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            name: &'static str,
            fields: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, D::Error> {
            match self.0.is_human_readable() {
                true => self.0.deserialize_struct(name, fields, Fields { fields, of: visitor }),
                false => self.0.deserialize_struct(name, fields, visitor),
            }
        }
        fn deserialize_enum<V: Visitor<'de>>(
            self,
            name: &'static str,
            variants: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, D::Error> {
            self.0.deserialize_enum(name, variants, visitor)
        }
        fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.0.deserialize_any(visitor)
        }
        fn is_human_readable(&self) -> bool {
            self.0.is_human_readable()
        }
        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map identifier ignored_any
        }
    }

    /// A visitor, or what it is given, that knows the names of fields.
    struct Fields<I> {
        fields: &'static [&'static str],
        of: I,
    }

    impl<'de, V: Visitor<'de>> Visitor<'de> for Fields<V> {
        type Value = V::Value;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.of.expecting(f)
        }
        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
            self.of.visit_map(Fields { fields: self.fields, of: map })
        }
        fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<V::Value, A::Error> {
            self.of.visit_seq(list)
        }
    }

    impl<'de, A: MapAccess<'de>> MapAccess<'de> for Fields<A> {
        type Error = A::Error;

        fn next_key_seed<K: DeserializeSeed<'de>>(
            &mut self,
            seed: K,
        ) -> Result<Option<K::Value>, A::Error> {
            let Some(name) = self.of.next_key::<String>()? else { return Ok(None) };
            if !self.fields.contains(&name.as_str())
                && let Some(near) = nearest(&name, self.fields.iter().copied())
            {
                let meant = format!("unknown field `{name}`, did you mean `{near}`?");
                return Err(A::Error::custom(meant));
            }
            // the other unknown ones are refused with all names there are
            seed.deserialize(name.into_deserializer()).map(Some)
        }
        fn next_value_seed<S: DeserializeSeed<'de>>(
            &mut self,
            seed: S,
        ) -> Result<S::Value, A::Error> {
            self.of.next_value_seed(seed)
        }
        fn size_hint(&self) -> Option<usize> {
            self.of.size_hint()
        }
    }
}
