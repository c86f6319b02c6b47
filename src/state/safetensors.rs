//! State dicts as safetensors files: readable by PyTorch, no code in them, checked before use.

use super::dict::{Dtype, Scalar, StateDict, StateTensor, problem};
use super::file;
use crate::error::{Error, Result};
use safetensors::tensor::TensorView;
use safetensors::{Dtype as FileDtype, SafeTensors};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

impl StateDict {
    /// The state dict in the safetensors format: tensors as tensors, scalars in the metadata.
    ///
    /// Numbers are written in the shortest decimal form that reads back as the same bits.
    ///
    /// # Errors
    /// [`Error::StateDict`] for a tensor whose bytes do not fit its shape.
    pub fn to_safetensors(&self) -> Result<Vec<u8>> {
        let mut views = Vec::with_capacity(self.tensors.len());
        for (key, tensor) in &self.tensors {
            // the product of sizes that the format takes is not checked
            if !tensor.fits() {
                return Err(problem(key, "has bytes that do not fit its shape"));
            }
            let view =
                TensorView::new(file_dtype(tensor.dtype), tensor.shape.clone(), &tensor.bytes);
            views.push((key, view.map_err(|error| problem(key, error.to_string()))?));
        }
        let mut metadata: HashMap<String, String> =
            self.scalars.iter().map(|(key, scalar)| (key.clone(), to_text(scalar))).collect();
        metadata.insert("version".into(), self.version.to_string());
        metadata.insert("optimizer".into(), self.optimizer.clone());
        safetensors::serialize(views, Some(metadata))
            .map_err(|error| problem("safetensors", error.to_string()))
    }

    /// Reads what [`StateDict::to_safetensors`] wrote, or a program of the same conventions.
    ///
    /// # Errors
    /// [`Error::StateDict`] for bytes that are no such file, truncated or corrupted, and for element
    /// types that no state has. Whether the contents fit an optimizer is checked when it loads them.
    pub fn from_safetensors(bytes: &[u8]) -> Result<Self> {
        let wrong = |error: safetensors::SafeTensorError| problem("safetensors", error.to_string());
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(wrong)?;
        let file = SafeTensors::deserialize(bytes).map_err(wrong)?;
        let mut text: BTreeMap<String, String> =
            header.metadata().clone().unwrap_or_default().into_iter().collect();
        let mut header = |key: &str| text.remove(key).ok_or_else(|| problem(key, "is missing"));
        let version = header("version")?;
        let version =
            version.parse().map_err(|_| problem("version", format!("`{version}` is no number")))?;
        let mut dict = Self { version, ..Self::new(&header("optimizer")?) };
        dict.scalars = text.into_iter().map(|(key, text)| (key, from_text(text))).collect();
        for (key, view) in file.iter() {
            let tensor = StateTensor {
                dtype: dtype(key, view.dtype())?,
                shape: view.shape().to_vec(),
                bytes: view.data().to_vec(),
            };
            dict.tensors.insert(key.to_owned(), tensor);
        }
        Ok(dict)
    }

    /// Writes a safetensors file.
    ///
    /// The bytes go to a new file next to `path`, of a name that no other saver uses, are flushed to
    /// the disk, and then take its name: a crash in between, or another saver of the same path,
    /// leaves a whole file, the old one or the new one. A file that exists keeps its permissions; of
    /// a symbolic link, the file that it points to is replaced. What crashed savers have left behind
    /// in the folder (`.eigenstep-….partial`) is removed.
    ///
    /// # Errors
    /// [`Error::StateDict`] with the path, if it cannot be written; what was there stays as it was.
    pub fn save_safetensors(&self, path: impl AsRef<Path>) -> Result<()> {
        let (path, bytes) = (path.as_ref(), self.to_safetensors()?);
        file::replace(path, &bytes).map_err(|error| io_problem(path, &error))
    }

    /// Reads a safetensors file.
    ///
    /// # Errors
    /// [`Error::StateDict`] with the path if it cannot be read, else as
    /// [`StateDict::from_safetensors`].
    pub fn load_safetensors(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::from_safetensors(&fs::read(path).map_err(|error| io_problem(path, &error))?)
    }
}

fn io_problem(path: &Path, error: &std::io::Error) -> Error {
    problem(path.display().to_string(), error.to_string())
}

fn file_dtype(dtype: Dtype) -> FileDtype {
    match dtype {
        Dtype::F64 => FileDtype::F64,
        Dtype::F32 => FileDtype::F32,
        Dtype::Bf16 => FileDtype::BF16,
        Dtype::F16 => FileDtype::F16,
        Dtype::U8 => FileDtype::U8,
        Dtype::I64 => FileDtype::I64,
    }
}

fn dtype(key: &str, dtype: FileDtype) -> Result<Dtype> {
    Ok(match dtype {
        FileDtype::F64 => Dtype::F64,
        FileDtype::F32 => Dtype::F32,
        FileDtype::BF16 => Dtype::Bf16,
        FileDtype::F16 => Dtype::F16,
        FileDtype::U8 => Dtype::U8,
        FileDtype::I64 => Dtype::I64,
        other => return Err(problem(key, format!("no state has elements of type {other:?}"))),
    })
}

/// A scalar as text that [`from_text`] reads as the same scalar.
fn to_text(scalar: &Scalar) -> String {
    match scalar {
        Scalar::Int(value) => value.to_string(),
        // `{:?}` keeps the point that tells 1.0 from 1
        Scalar::Float(value) => format!("{value:?}"),
        Scalar::Bool(value) => value.to_string(),
        Scalar::Text(text) => {
            let plain = from_text(text.clone()) == *scalar;
            if plain { text.clone() } else { format!("\"{text}\"") }
        }
    }
}

fn from_text(text: String) -> Scalar {
    if let Ok(value) = text.parse() {
        return Scalar::Bool(value);
    }
    if let Ok(value) = text.parse() {
        return Scalar::Int(value);
    }
    if let Ok(value) = text.parse() {
        return Scalar::Float(value);
    }
    let quoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    Scalar::Text(quoted.map(str::to_owned).unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_survive_as_text() {
        for scalar in [
            Scalar::Int(-3),
            Scalar::Float(1.0),
            Scalar::Float(1e-8),
            Scalar::Float(0.1 + 0.2),
            Scalar::Float(f64::INFINITY),
            Scalar::Float(f64::from_bits(1)),
            Scalar::Bool(true),
            Scalar::Text("all".into()),
            Scalar::Text("5".into()),
            Scalar::Text("true".into()),
            Scalar::Text("inf".into()),
            Scalar::Text("\"quoted\"".into()),
            Scalar::Text("\"".into()),
            Scalar::Text(String::new()),
        ] {
            assert_eq!(from_text(to_text(&scalar)), scalar);
        }
    }
}
