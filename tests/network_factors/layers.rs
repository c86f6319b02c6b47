//! Kinds of layers: convolutions, sequences, biases, layouts.

use super::*;
use eigenstep::curvature::{Conv2d, StatisticScale, WeightSharing, image_rows, unfold};
use ndarray::{Array4, Axis, concatenate, s};
use noise::noise;
use proptest::prelude::*;

fn images(examples: usize, channels: usize, size: [usize; 2], seed: u64) -> Array4<f64> {
    let [height, width] = size;
    let values = noise(examples * channels, height * width, seed);
    Array4::from_shape_vec((examples, channels, height, width), values.into_iter().collect())
        .unwrap()
}

/// The convolution by its definition.
fn convolve(x: &Array4<f64>, w: &Array4<f64>, conv: &Conv2d) -> Array4<f64> {
    let (examples, channels, height, width) = x.dim();
    let (outputs, _, kernel_rows, kernel_columns) = w.dim();
    let [rows, columns] = conv.output([height, width]).unwrap();
    Array4::from_shape_fn((examples, outputs, rows, columns), |(e, o, i, j)| {
        let mut sum = 0.0;
        for c in 0..channels {
            for (a, b) in (0..kernel_rows).flat_map(|a| (0..kernel_columns).map(move |b| (a, b))) {
                let y = (i * conv.stride[0] + a * conv.dilation[0]).checked_sub(conv.padding[0]);
                let z = (j * conv.stride[1] + b * conv.dilation[1]).checked_sub(conv.padding[1]);
                if let (Some(y), Some(z)) = (y, z)
                    && y < height
                    && z < width
                {
                    sum += w[(o, c, a, b)] * x[(e, c, y, z)];
                }
            }
        }
        sum
    })
}

/// Geometries with an output.
fn geometries() -> impl Strategy<Value = (Conv2d, [usize; 2], usize, usize, usize, u64)> {
    let pair = |from: usize, to: usize| (from..to, from..to).prop_map(|(a, b)| [a, b]);
    let conv = (pair(1, 4), pair(1, 4), pair(0, 3), pair(1, 3));
    let conv = conv.prop_map(|(kernel, stride, padding, dilation)| Conv2d {
        kernel,
        stride,
        padding,
        dilation,
    });
    let sizes = (conv, pair(1, 8), 1..4_usize, 1..4_usize, 1..4_usize, any::<u64>());
    sizes.prop_filter("no patch fits", |(conv, size, ..)| conv.output(*size).is_some())
}

proptest! {
    #![proptest_config(cases::cases(60))]

    /// A convolution is a product with patches, and the gradient of its weight another.
    #[test]
    fn patches_are_those_of_the_convolution(
        (conv, size, examples, channels, outputs, seed) in geometries(),
    ) {
        let x = images(examples, channels, size, seed);
        let w = images(outputs, channels, conv.kernel, seed ^ 1);
        let patches = unfold(&x, &conv).unwrap();
        let flat = w.to_shape((outputs, patches.ncols())).unwrap();
        let y = convolve(&x, &w, &conv);
        close(&patches.dot(&flat.t()), &image_rows(&y), 1e-12);
        // ⟨conv(x, w), δ⟩ is linear in w: its derivative along each unit of w is that of the gradient
        let delta = y.mapv(|y| (3.0 * y).sin());
        let gradient = image_rows(&delta).t().dot(&patches);
        let along = Array2::from_shape_fn(gradient.dim(), |at| {
            let mut unit = Array2::zeros(gradient.dim());
            unit[at] = 1.0;
            let unit = unit.into_shape_with_order(w.dim()).unwrap();
            (convolve(&x, &unit, &conv) * &delta).sum()
        });
        close(&gradient, &along, 1e-10);
    }

    /// A convolution's statistics are those of a linear layer that sees its patches.
    #[test]
    fn a_convolution_is_a_linear_layer_of_patches(
        (conv, size, examples, channels, outputs, seed) in geometries(), bias in any::<bool>(),
    ) {
        let x = images(examples, channels, size, seed);
        let output = conv.output(size).unwrap();
        let y = images(examples, outputs, output, seed ^ 1);
        let columns = channels * conv.kernel[0] * conv.kernel[1];
        let mut grads = Tree::from([("w".into(), noise(outputs, columns, seed ^ 2).into_dyn())]);
        let with_bias = |spec: LayerSpec| if bias { spec.with_bias("b") } else { spec };
        grads.insert("b".into(), noise(outputs, 1, seed ^ 3).remove_axis(Axis(1)).into_dyn());
        let build = |spec| {
            let network = NetworkFactors::new(kfac(0.1, KroneckerInverse::Joint)).build().unwrap();
            network.with_layer(with_bias(spec)).unwrap()
        };
        let mean = LossReduction::MeanOverExamples;
        let mut linear = build(LayerSpec::linear("w", outputs, columns));
        let (patches, rows) = (unfold(&x, &conv).unwrap(), image_rows(&y));
        linear.observe(&LayerStats::new("w", &patches, &rows, mean).examples(examples)).unwrap();
        let expected = view(&mut linear, &grads);
        let mut network = build(LayerSpec::conv2d("w", outputs, channels, conv));
        network.observe(&LayerStats::new("w", &x, &y, mean)).unwrap();
        let shape = (outputs, channels, conv.kernel[0], conv.kernel[1]);
        let reshaped = grads["w"].to_shape(shape).unwrap().into_owned().into_dyn();
        grads.insert("w".into(), reshaped);
        let found = view(&mut network, &grads);
        let matrix = found["w"].to_shape((outputs, columns)).unwrap().into_owned();
        close(&matrix, &super::matrix(&expected["w"]), 1e-9);
        let column = |x: &ArrayD<f64>| x.to_shape((outputs, 1)).unwrap().into_owned();
        close(&column(&found["b"]), &column(&expected["b"]), 1e-9);
    }
}

#[test]
fn geometries_without_an_output_are_refused() {
    let x = images(1, 1, [2, 5], 1);
    for conv in [
        Conv2d::new([3, 3]),
        Conv2d::new([0, 1]),
        Conv2d { stride: [0, 1], ..Conv2d::new([1, 1]) },
        Conv2d { dilation: [2, 1], ..Conv2d::new([2, 2]) },
        Conv2d { dilation: [usize::MAX, 1], ..Conv2d::new([3, 3]) },
        Conv2d { padding: [usize::MAX, 1], ..Conv2d::new([1, 1]) },
    ] {
        let error = unfold(&x, &conv).unwrap_err().to_string();
        let text = "Conv2d: `kernel` must be sizes of at least 1, and a patch no larger than the padded \
                    image, got Conv2d";
        assert!(error.starts_with(text), "{error}");
    }
    let same = Conv2d { padding: [1, 1], ..Conv2d::new([3, 3]) };
    assert_eq!(unfold(&x, &same).unwrap().dim(), (10, 9));
    assert_eq!(unfold(&images(0, 1, [2, 5], 1), &same).unwrap().dim(), (0, 9));
}

/// A bias is one more input that is always 1, the last.
#[test]
fn a_bias_is_a_column_of_ones() {
    let (m, n) = (4, 5);
    let (x, y, g) = (noise(9, n, 1), noise(9, m, 2), noise(m, n + 1, 3));
    let with_ones = concatenate![Axis(1), x, Array2::ones((9, 1))];
    for inverse in INVERSES {
        let layer = kfac(0.1, inverse);
        let expected = once(layer.clone(), &with_ones, &y, &g);
        let network = NetworkFactors::new(layer).build().unwrap();
        let spec = LayerSpec::linear("w", m, n).with_bias("b");
        let mut network = network.with_layer(spec).unwrap();
        network.observe(&LayerStats::new("w", &x, &y, LossReduction::Sum)).unwrap();
        let (weight, bias) = g.view().split_at(Axis(1), n);
        // the order of leaves does not matter
        let grads = Tree::from([
            ("w".to_owned(), weight.to_owned().into_dyn()),
            ("b".to_owned(), bias.remove_axis(Axis(1)).to_owned().into_dyn()),
        ]);
        let found = view(&mut network, &grads);
        close(&matrix(&found["w"]), &expected.slice(s![.., ..n]).to_owned(), 1e-12);
        close(
            &found["b"].to_shape((m, 1)).unwrap().into_owned(),
            &expected.slice(s![.., n..]).to_owned(),
            1e-12,
        );
    }
}

/// Weights that are inputs × outputs.
#[test]
fn transposed_weights() {
    let (x, y, g) = (noise(9, 5, 1), noise(9, 4, 2), noise(4, 5, 3));
    let layer = kfac(0.1, KroneckerInverse::Balanced);
    let expected = once(layer.clone(), &x, &y, &g);
    let network = NetworkFactors::new(layer).build().unwrap();
    let mut network = network.with_layer(LayerSpec::linear_transposed("w", 5, 4)).unwrap();
    network.observe(&LayerStats::new("w", &x, &y, LossReduction::Sum)).unwrap();
    let g = g.t().as_standard_layout().into_owned();
    assert_eq!(direction(&mut network, &g).t(), expected);
}

/// Sequences: three dimensions, or rows and the number of examples.
#[test]
fn sequences_are_rows() {
    let (examples, positions, m, n) = (6, 4, 3, 5);
    let (x, y) = (noise(24, n, 1), noise(24, m, 2));
    let g = noise(m, n, 3);
    let in_three =
        |a: &Array2<f64>, width| a.to_shape((examples, positions, width)).unwrap().into_owned();
    let (x3, y3) = (in_three(&x, n), in_three(&y, m));
    for sharing in [WeightSharing::Expand, WeightSharing::Reduce] {
        let build = || {
            let layer = kfac(0.1, KroneckerInverse::PerFactor);
            let network = NetworkFactors::new(layer).build().unwrap();
            network.with_layer(LayerSpec::linear("w", m, n).with_sharing(sharing)).unwrap()
        };
        for mean in [LossReduction::MeanOverExamples, LossReduction::MeanOverRows] {
            let mut three = build();
            three.observe(&LayerStats::new("w", &x3, &y3, mean)).unwrap();
            let d = direction(&mut three, &g);
            let mut rows = build();
            rows.observe(&LayerStats::new("w", &x, &y, mean).examples(examples)).unwrap();
            assert_eq!(direction(&mut rows, &g), d);
            // by hand, as a summed loss
            let samples = if mean == LossReduction::MeanOverRows { 24.0 } else { 6.0 };
            let (x, y) = match sharing {
                WeightSharing::Expand => (x.clone(), samples * &y),
                WeightSharing::Reduce => {
                    (x3.mean_axis(Axis(1)).unwrap(), samples * y3.sum_axis(Axis(1)))
                }
            };
            close(&d, &once(kfac(0.1, KroneckerInverse::PerFactor), &x, &y, &g), 1e-12);
        }
    }
}

/// More rows than are in memory at a time, and images of a batch in any layout.
#[test]
fn long_batches_and_layouts() {
    let (m, n) = (3, 5);
    let (x, y, g) = (noise(10_000, n, 1), noise(10_000, m, 2), noise(m, n, 3));
    let layer = kfac(0.1, KroneckerInverse::PerFactor);
    let d = once(layer.clone(), &x, &y, &g);
    let ridge = |n| 0.1 * Array2::<f64>::eye(n);
    let damped = |a: &Array2<f64>| mean_gram(a) + ridge(a.ncols());
    close(&damped(&y).dot(&d).dot(&damped(&x)), &g, 1e-12);
    let columns = |a: &Array2<f64>| a.t().as_standard_layout().into_owned();
    let (xt, yt) = (columns(&x), columns(&y));
    let mut network = single(layer.clone(), (m, n));
    network.observe(&LayerStats::new("w", &xt.t(), &yt.t(), LossReduction::Sum)).unwrap();
    assert_eq!(direction(&mut network, &g), d);

    let conv = Conv2d { padding: [1, 0], ..Conv2d::new([3, 2]) };
    let (x, y) = (images(40, 2, [12, 13], 1), images(40, 3, [12, 12], 2));
    let g = images(3, 2, [3, 2], 3).into_dyn();
    let directions: Vec<_> = [false, true]
        .map(|last| {
            // channels last in memory
            let order = |a: &Array4<f64>| {
                let by_channel =
                    a.view().permuted_axes([0, 2, 3, 1]).as_standard_layout().into_owned();
                if last { by_channel.permuted_axes([0, 3, 1, 2]) } else { a.clone() }
            };
            let network = NetworkFactors::new(layer.clone()).build().unwrap();
            let mut network = network.with_layer(LayerSpec::conv2d("w", 3, 2, conv)).unwrap();
            let (x, y) = (order(&x), order(&y));
            network.observe(&LayerStats::new("w", &x, &y, LossReduction::Sum)).unwrap();
            view(&mut network, &Tree::from([("w".to_owned(), g.clone())]))["w"].clone()
        })
        .into();
    assert_eq!(directions[0], directions[1]);
}

/// kfac-pytorch divides rows of a convolution, ones included, by the number of positions.
#[test]
fn statistics_as_kfac_pytorch_scales_them() {
    let (x, y) = (images(4, 2, [5, 5], 1), images(4, 3, [3, 3], 2));
    let conv = Conv2d::new([3, 3]);
    let config = NetworkFactors {
        scale: StatisticScale::KfacPytorch,
        ..NetworkFactors::new(LayerFactors {
            factor_beta: 0.0,
            ..kfac(0.1, KroneckerInverse::Joint)
        })
    };
    let network = config.build().unwrap();
    let spec = LayerSpec::conv2d("w", 3, 2, conv).with_bias("b");
    let mut network = network.with_layer(spec).unwrap();
    let mean = LossReduction::MeanOverExamples;
    network.observe(&LayerStats::new("w", &x, &y, mean)).unwrap();
    let zeros = Tree::from([
        ("w".to_owned(), Array4::zeros((3, 2, 3, 3)).into_dyn()),
        ("b".to_owned(), Array1::zeros(3).into_dyn()),
    ]);
    view(&mut network, &zeros);
    let patches = concatenate![Axis(1), unfold(&x, &conv).unwrap(), Array2::ones((36, 1))] / 9.0;
    let [left, right] = network.factors("w").unwrap();
    close(&left.statistic(), &mean_gram(&(image_rows(&y) / 9.0)), 1e-12);
    close(&right.statistic(), &mean_gram(&patches), 1e-12);
}
