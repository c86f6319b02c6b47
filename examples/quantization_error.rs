//! What low-bit storage does to the inverse fourth root of a matrix: the table of the 4-bit Shampoo
//! paper. A has two eigenvalues of ratio 1000, 60 % of them large, and random eigenvectors U.
//!
//! ```text
//! cargo run --release --example quantization_error -- --n 256
//! ```
//!
//! NRE is `‖f(A) − f(Â)‖/‖f(A)‖` with `f(A) = |A|^(−1/4)`, AE the angle between the two in degrees.

use eigenstep::Result;
use eigenstep::linalg::{bjorck, cholesky, eigh, gram_left, matmul, qr};
use eigenstep::quant::{
    MatrixCodec, MatrixMap, QuantizedColumns, QuantizedSymmetric, QuantizedTriangular,
};
use ndarray::{Array1, Array2};

const RATIO: f64 = 1000.0;
const LARGE: f64 = 0.6;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let n = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => 256,
        ["--n", n] if n.parse::<usize>().is_ok_and(|n| n > 0) => n.parse().unwrap_or(256),
        _ => {
            eprintln!("usage: quantization_error [--n ORDER]");
            std::process::exit(2);
        }
    };
    let u = orthogonal(n)?;
    let large = (LARGE * n as f64).round() as usize;
    let values = Array1::from_shape_fn(n, |i| if i < large { RATIO } else { 1.0 });
    let a = rebuild(&u, &values)?;
    let (root, factor) = (inverse_root(&a)?, cholesky(&a)?);

    println!("order {n}, blocks of {}", MatrixCodec::default().block_size);
    println!("map        bits  coded                NRE      AE");
    for map in [MatrixMap::DynamicTree, MatrixMap::Linear2] {
        for bits in [3, 4, 8] {
            let codec = MatrixCodec { bits, map, ..MatrixCodec::default() };
            let v = columns(codec, &u)?;
            let rectified = bjorck(&v, 1)?;
            let root_of = |v: &Array2<f64>| inverse_root(&rebuild(v, &values)?);
            for (name, found) in [
                ("A", inverse_root(&symmetric(codec, &a)?)?),
                ("Cholesky factor", inverse_root(&gram_left(&lower(codec, &factor)?))?),
                ("U", root_of(&v)?),
                ("U, rectified", root_of(&rectified)?),
                ("root", symmetric(codec, &root)?),
                ("U, rectified; root", symmetric(codec, &root_of(&rectified)?)?),
            ] {
                let (error, angle) = errors(&root, &found);
                println!("{:9}  {bits:4}  {name:18}  {error:.4}  {angle:7.4}°", map.name());
            }
        }
    }
    Ok(())
}

fn columns(codec: MatrixCodec, x: &Array2<f64>) -> Result<Array2<f64>> {
    let mut coded = QuantizedColumns::zeros(codec, x.dim())?;
    coded.encode(x)?;
    Ok(coded.decode())
}

fn symmetric(codec: MatrixCodec, x: &Array2<f64>) -> Result<Array2<f64>> {
    let mut coded = QuantizedSymmetric::zeros(codec, x.nrows())?;
    coded.encode(x)?;
    Ok(coded.decode())
}

fn lower(codec: MatrixCodec, x: &Array2<f64>) -> Result<Array2<f64>> {
    let mut coded = QuantizedTriangular::zeros(codec, x.nrows())?;
    coded.encode(x)?;
    Ok(coded.decode())
}

/// `V Diag(λ) Vᵀ`.
fn rebuild(v: &Array2<f64>, values: &Array1<f64>) -> Result<Array2<f64>> {
    matmul(&(v * values), &v.t())
}

/// `|A|^(−1/4)`; rounding has made A unsymmetric and perhaps indefinite.
fn inverse_root(a: &Array2<f64>) -> Result<Array2<f64>> {
    let (values, vectors) = eigh(&((a + &a.t()) / 2.0))?;
    rebuild(&vectors, &values.mapv(|x| x.abs().powf(-0.25)))
}

fn errors(exact: &Array2<f64>, found: &Array2<f64>) -> (f64, f64) {
    let norm = |x: &Array2<f64>| x.mapv(|x| x * x).sum().sqrt();
    let cosine = (exact * found).sum() / (norm(exact) * norm(found));
    (norm(&(exact - found)) / norm(exact), cosine.min(1.0).acos().to_degrees())
}

/// Q of a Gaussian matrix.
fn orthogonal(n: usize) -> Result<Array2<f64>> {
    let mut state = 1_u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 40) as f64 / f64::from(1 << 24) - 0.5
    };
    let gaussian = Array2::from_shape_simple_fn((n, n), || (0..12).map(|_| uniform()).sum());
    Ok(qr(&gaussian)?.0)
}
