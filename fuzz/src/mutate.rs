//! Changes of bytes, of JSON and of state dicts that keep most of their structure.

use crate::random::{FLOATS, INTEGERS, Random};
use eigenstep::state::{Dtype, Scalar, StateDict};
use serde_json::Value;

/// Changes a few bytes, or the length.
pub fn bytes(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..1 + random.below(3) {
        let Some(at) = random.choose(bytes) else { return bytes.push(random.next() as u8) };
        match random.below(8) {
            0 => bytes[at] = random.next() as u8,
            1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes.truncate(at),
            3 => bytes.insert(at, random.next() as u8),
            4 => drop(bytes.remove(at)),
            5 => write(bytes, at, &random.pick(&INTEGERS).to_le_bytes()),
            6 => write(bytes, at, &(*random.pick(&FLOATS) as f32).to_le_bytes()),
            _ => write(bytes, at, &random.pick(&FLOATS).to_le_bytes()),
        }
    }
}

fn write(bytes: &mut [u8], at: usize, new: &[u8]) {
    bytes[at..].iter_mut().zip(new).for_each(|(byte, &new)| *byte = new);
}

fn shape(random: &mut Random) -> Vec<usize> {
    let sizes = [0, 1, 2, 3, 24, 30, 1 << 31, 1 << 32, 1 << 33, 1 << 40, 1 << 60, usize::MAX];
    (0..random.below(4)).map(|_| *random.pick(&sizes)).collect()
}

fn scalar(random: &mut Random) -> Scalar {
    let words = ["", "unset", "full", "true", "1", "2,x", "-1", "0", "all", "NaN"];
    match random.below(6) {
        0 | 1 => Scalar::Int(*random.pick(&INTEGERS)),
        2 | 3 => Scalar::Float(*random.pick(&FLOATS)),
        4 => Scalar::Bool(random.once_in(2)),
        _ if random.once_in(2) => Scalar::Text((*random.pick(&words)).to_owned()),
        _ => {
            let dims: Vec<String> = shape(random).iter().map(usize::to_string).collect();
            Scalar::Text(dims.join(","))
        }
    }
}

/// Changes entries of a state dict.
pub fn dict(dict: &mut StateDict, random: &mut Random) {
    for _ in 0..1 + random.below(3) {
        if random.once_in(40) {
            dict.version = random.below(4) as u32;
        }
        if random.once_in(2) {
            change_scalar(dict, random);
        } else {
            change_tensor(dict, random);
        }
    }
}

fn change_scalar(dict: &mut StateDict, random: &mut Random) {
    let keys: Vec<String> = dict.scalars.keys().cloned().collect();
    let Some(at) = random.choose(&keys) else { return };
    let key = keys[at].clone();
    match random.below(8) {
        0 => drop(dict.scalars.remove(&key)),
        1 => {
            let other = dict.scalars[random.pick(&keys)].clone();
            dict.scalars.insert(key, other);
        }
        2 => {
            let moved = dict.scalars.remove(&key);
            let other = key.replace(".0.", ".1.").replace(".1", ".9");
            dict.scalars.extend(moved.map(|moved| (other, moved)));
        }
        _ => drop(dict.scalars.insert(key, scalar(random))),
    }
}

fn change_tensor(dict: &mut StateDict, random: &mut Random) {
    let keys: Vec<String> = dict.tensors.keys().cloned().collect();
    let Some(at) = random.choose(&keys) else { return change_scalar(dict, random) };
    let key = &keys[at];
    let other = dict.tensors[random.pick(&keys)].clone();
    let Some(tensor) = dict.tensors.get_mut(key) else { return };
    match random.below(10) {
        0 => drop(dict.tensors.remove(key)),
        1 => *tensor = other,
        2 => tensor.shape = shape(random),
        3 => {
            if let Some(dim) = random.choose(&tensor.shape) {
                tensor.shape[dim] = INTEGERS[random.below(INTEGERS.len())] as usize;
            }
        }
        4 => {
            let types = [Dtype::F64, Dtype::F32, Dtype::Bf16, Dtype::F16, Dtype::U8, Dtype::I64];
            tensor.dtype = *random.pick(&types);
        }
        5 => {
            let moved = dict.tensors.remove(key);
            dict.tensors.extend(moved.map(|moved| (format!("{key}.more"), moved)));
        }
        6 => {
            // consistent, but of another size
            let (numel, size) = (random.below(40), tensor.dtype.size());
            tensor.shape = vec![numel];
            tensor.bytes.resize(numel * size, 0);
        }
        7 => {
            // a shape that the slot's own size does not tell from the right one
            tensor.shape.push([0, 1, 1 << 40][random.below(3)]);
        }
        _ => bytes(&mut tensor.bytes, random),
    }
}

/// Changes values of a JSON document.
pub fn json(value: &mut Value, random: &mut Random) {
    match value {
        Value::Object(fields) if !fields.is_empty() && !random.once_in(12) => {
            let at = random.below(fields.len());
            let Some(name) = fields.keys().nth(at).cloned() else { return };
            match random.below(16) {
                0 => drop(fields.remove(&name)),
                1 => {
                    let moved = fields.remove(&name).unwrap_or_default();
                    fields.insert(format!("{name}_"), moved);
                }
                _ => json(&mut fields[&name], random),
            }
        }
        Value::Array(items) if !items.is_empty() && !random.once_in(12) => {
            let at = random.below(items.len());
            match random.below(8) {
                0 => drop(items.remove(at)),
                1 => items.push(items[at].clone()),
                _ => json(&mut items[at], random),
            }
        }
        _ => *value = any(random),
    }
}

fn any(random: &mut Random) -> Value {
    match random.below(10) {
        0 => Value::Null,
        1 => Value::Bool(random.once_in(2)),
        2..=4 => Value::from(*random.pick(&INTEGERS)),
        5 => Value::from(u64::MAX),
        6..=7 => Value::from(*random.pick(&FLOATS)),
        8 => Value::from(*random.pick(&["", "Full", "Dense", "TopK", "NaN", "inf"])),
        _ => Value::Array(vec![Value::from(1); random.below(4)]),
    }
}
