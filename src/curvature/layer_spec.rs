//! What a layer is: its kind, and the names of its parameters.

use super::conv::Conv2d;

/// A layer whose statistics are observed: its kind, its sizes, and the names of its weight and bias.
///
/// Names are those of the tree of gradients: `fc1.weight`, `layers.0.bias`. Nothing is guessed from
/// shapes. A bias counts as one more input, the last, which is 1 for every sample; whoever takes the
/// statistics adds it.
///
/// A weight may be stored either way
/// ([which way round](crate::params#which-way-round-is-a-matrix)); note the order of the arguments, which is
/// that of its shape.
///
/// | constructor | weight | inputs | output gradients |
/// |---|---|---|---|
/// | [`linear`](Self::linear) | out × in, as in PyTorch | .. × in | .. × out |
/// | [`linear_transposed`](Self::linear_transposed) | in × out: `x.dot(&weight)` | .. × in | .. × out |
/// | [`conv2d`](Self::conv2d) | out × channels × kernel height × kernel width | N × channels × H × W | N × out × H′ × W′ |
///
/// # Examples
/// ```
/// use eigenstep::curvature::{Conv2d, LayerSpec};
///
/// let head = LayerSpec::linear("head.weight", 10, 64).with_bias("head.bias");
/// assert_eq!((head.weight(), head.bias()), ("head.weight", Some("head.bias")));
/// let conv = Conv2d { padding: [1, 1], ..Conv2d::new([3, 3]) };
/// let first = LayerSpec::conv2d("conv.weight", 16, 3, conv);
/// assert_eq!(first.weight_shape(), [16, 3, 3, 3]);
/// assert_eq!(first.factor_orders(), (16, 27));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerSpec {
    pub(super) kind: LayerKind,
    weight: String,
    bias: Option<String>,
    outputs: usize,
    /// Inputs of a linear layer, channels of a convolution.
    inputs: usize,
    sharing: WeightSharing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LayerKind {
    Linear { transposed: bool },
    Conv2d(Conv2d),
}

/// How statistics treat several positions of an example that share a weight: the tokens of a sequence, the
/// patches of a convolution.
///
/// # Source
/// R. Eschenhagen, A. Immer, R. Turner, F. Schneider, P. Hennig, "Kronecker-Factored Approximate Curvature
/// for Modern Neural Network Architectures", NeurIPS 2023.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightSharing {
    /// Every position is a sample: the loss is a sum of losses of positions, as in language models.
    #[default]
    Expand,
    /// Inputs are averaged and output gradients added up over the positions of an example first: the model
    /// averages over positions, as in classifiers of images. Far fewer rows.
    Reduce,
}

impl LayerSpec {
    fn new(kind: LayerKind, weight: &str, outputs: usize, inputs: usize) -> Self {
        let (weight, sharing) = (weight.to_owned(), WeightSharing::default());
        Self { kind, weight, bias: None, outputs, inputs, sharing }
    }

    /// A linear layer whose weight is outputs × inputs.
    pub fn linear(weight: &str, outputs: usize, inputs: usize) -> Self {
        Self::new(LayerKind::Linear { transposed: false }, weight, outputs, inputs)
    }

    /// A linear layer whose weight is inputs × outputs.
    pub fn linear_transposed(weight: &str, inputs: usize, outputs: usize) -> Self {
        Self::new(LayerKind::Linear { transposed: true }, weight, outputs, inputs)
    }

    /// A convolution of so many output and input channels.
    pub fn conv2d(weight: &str, outputs: usize, channels: usize, conv: Conv2d) -> Self {
        Self::new(LayerKind::Conv2d(conv), weight, outputs, channels)
    }

    /// The same layer with a bias: a parameter of one dimension, an element per output.
    pub fn with_bias(self, bias: &str) -> Self {
        Self { bias: Some(bias.to_owned()), ..self }
    }

    /// The same layer with another treatment of positions that share the weight.
    pub fn with_sharing(self, sharing: WeightSharing) -> Self {
        Self { sharing, ..self }
    }

    /// Name of the weight, which is also that of the layer.
    pub fn weight(&self) -> &str {
        &self.weight
    }

    /// Name of the bias.
    pub fn bias(&self) -> Option<&str> {
        self.bias.as_deref()
    }

    /// Shape of the weight.
    pub fn weight_shape(&self) -> Vec<usize> {
        match self.kind {
            LayerKind::Linear { transposed: false } => vec![self.outputs, self.inputs],
            LayerKind::Linear { transposed: true } => vec![self.inputs, self.outputs],
            LayerKind::Conv2d(Conv2d { kernel: [height, width], .. }) => {
                vec![self.outputs, self.inputs, height, width]
            }
        }
    }

    /// Number of outputs.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Number of inputs, channels for a convolution, without the one that a bias stands for.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// How positions are treated that share the weight.
    pub fn sharing(&self) -> WeightSharing {
        self.sharing
    }

    /// Columns of the matrix that the weight is to its inputs, without that of a bias.
    pub(super) fn columns(&self) -> usize {
        match &self.kind {
            LayerKind::Linear { .. } => self.inputs,
            LayerKind::Conv2d(conv) => self.inputs.saturating_mul(conv.area()),
        }
    }

    /// Orders of both factors: outputs, and inputs with the one that a bias stands for.
    pub fn factor_orders(&self) -> (usize, usize) {
        (self.outputs, self.columns().saturating_add(usize::from(self.bias.is_some())))
    }
}
