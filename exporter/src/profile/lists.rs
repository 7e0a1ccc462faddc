//! The operators that runtimes take, as their makers list them.
//!
//! Kept to what a vision network can hold; an operator on no list is a violation.

use emo_proto::tensor_proto::DataType;

use super::condition::{Condition, List, Permit};

const fn when(op: &'static str, source: &'static str, when: &'static [Condition]) -> Permit {
    Permit { domain: "", op, when, source }
}

const FLOATS: &[DataType] = &[DataType::Float, DataType::Float16];

pub const COREML: &str = "onnxruntime mobile_helpers/coreml_supported_mlprogram_ops.md";
const COREML_CODE: &str = "onnxruntime core/providers/coreml/builders/impl";

/// A map, not a line or a volume.
const TWO_D: Condition = Condition::Rank { operand: 0, lowest: 4, highest: 4 };

const COREML_WHEN: &[Permit] = &[
    when("AveragePool", COREML, &[TWO_D]),
    when("MaxPool", COREML, &[TWO_D]),
    when("GlobalAveragePool", COREML, &[TWO_D]),
    when("GlobalMaxPool", COREML, &[TWO_D]),
    when(
        "Conv",
        COREML,
        &[Condition::Rank { operand: 0, lowest: 3, highest: 4 }, Condition::Constant { operand: 2 }],
    ),
    when(
        "ConvTranspose",
        COREML,
        &[
            Condition::Constant { operand: 1 },
            Condition::Constant { operand: 2 },
            Condition::Text { attribute: "auto_pad", default: "NOTSET", values: &["NOTSET", "VALID"] },
        ],
    ),
    when(
        "DepthToSpace",
        COREML,
        &[Condition::Text { attribute: "mode", default: "DCR", values: &["DCR", "CRD"] }],
    ),
    when("GatherND", COREML, &[Condition::Int { attribute: "batch_dims", default: 0, values: &[0] }]),
    // The list puts the note on transA, alpha and beta beside MatMul, which has no such
    // attributes; gemm_op_builder.cc, which builds both, asks it of Gemm.
    when(
        "Gemm",
        COREML_CODE,
        &[
            Condition::Constant { operand: 1 },
            Condition::Int { attribute: "transA", default: 0, values: &[0] },
            Condition::Float { attribute: "alpha", value: 1.0 },
            Condition::Float { attribute: "beta", value: 1.0 },
        ],
    ),
    when("Pow", COREML, &[Condition::Types { operand: 0, types: &[DataType::Float] }]),
    when(
        "Slice",
        COREML,
        &[
            Condition::Constant { operand: 1 },
            Condition::Constant { operand: 2 },
            Condition::Constant { operand: 3 },
            Condition::Constant { operand: 4 },
        ],
    ),
    when("Split", COREML, &[Condition::Constant { operand: 1 }]),
    when(
        "Cast",
        COREML_CODE,
        &[Condition::Types {
            operand: 0,
            types: &[DataType::Float, DataType::Float16, DataType::Int32, DataType::Int64, DataType::Bool],
        }],
    ),
];

pub const NNAPI: &str = "onnxruntime mobile_helpers/nnapi_supported_ops.md";
const NNAPI_CODE: &str = "onnxruntime core/providers/nnapi/nnapi_builtin/builders/impl";

const UP_TO_4: Condition = Condition::Rank { operand: 0, lowest: 1, highest: 4 };

const NNAPI_WHEN: &[Permit] = &[
    when("AveragePool", NNAPI, &[TWO_D]),
    when("MaxPool", NNAPI, &[TWO_D]),
    when("GlobalAveragePool", NNAPI, &[TWO_D]),
    when("GlobalMaxPool", NNAPI, &[TWO_D]),
    when("Conv", NNAPI, &[TWO_D, Condition::Constant { operand: 1 }, Condition::Constant { operand: 2 }]),
    when("DepthToSpace", NNAPI, &[Condition::Text { attribute: "mode", default: "DCR", values: &["DCR"] }]),
    when("Gather", NNAPI, &[Condition::Constant { operand: 1 }]),
    when(
        "Gemm",
        NNAPI_CODE,
        &[
            Condition::Int { attribute: "transA", default: 0, values: &[0] },
            Condition::Float { attribute: "alpha", value: 1.0 },
            Condition::Float { attribute: "beta", value: 1.0 },
        ],
    ),
    when(
        "Pad",
        NNAPI,
        &[
            Condition::Text { attribute: "mode", default: "constant", values: &["constant"] },
            Condition::Constant { operand: 1 },
            Condition::Constant { operand: 2 },
            Condition::NonNegative { operand: 1 },
        ],
    ),
    when("Resize", NNAPI, &[TWO_D]),
    when("Split", NNAPI, &[Condition::Constant { operand: 1 }, Condition::EqualParts]),
    when("Squeeze", NNAPI, &[Condition::Constant { operand: 1 }]),
    when("Unsqueeze", NNAPI, &[Condition::Constant { operand: 1 }]),
    // The checker passes any rank here; the provider refuses more than four axes.
    when("Reshape", NNAPI_CODE, &[UP_TO_4, Condition::Constant { operand: 1 }]),
    when("Transpose", NNAPI_CODE, &[UP_TO_4]),
    when("Softmax", NNAPI_CODE, &[UP_TO_4]),
    when("Cast", NNAPI_CODE, &[Condition::Types { operand: 0, types: &[DataType::Float, DataType::Int32] }]),
];

pub const QNN: &str = "onnxruntime.ai QNN Execution Provider, supported ONNX operators";

const QNN_WHEN: &[Permit] = &[when(
    "Gemm",
    QNN,
    &[
        Condition::Int { attribute: "transA", default: 0, values: &[0] },
        Condition::Float { attribute: "alpha", value: 1.0 },
        Condition::Float { attribute: "beta", value: 1.0 },
    ],
)];

pub const TFLITE: &str = "tensorflow lite/schema/schema.fbs, BuiltinOperator";

pub const TENSORRT: &str = "onnx-tensorrt docs/operators.md";

pub const WEBGPU: &str = "onnxruntime js/web/docs/webgpu-operators.md";

pub const NCNN: &str = "ncnn tools/pnnx/src/pass_ncnn and docs/developer-guide/operators.md";

const NCNN_WHEN: &[Permit] = &[
    when("Reshape", "ncnn#4708", &[UP_TO_4, Condition::Constant { operand: 1 }]),
    when("Transpose", "ncnn#4708", &[UP_TO_4]),
    when("Softmax", NCNN, &[Condition::Types { operand: 0, types: FLOATS }]),
];

pub const COREML_LIST: List = List {
    source: COREML,
    plain: "Add ArgMax Ceil Clip Concat Cos Div Elu Erf Exp Gelu GroupNormalization HardSigmoid \
            Identity InstanceNormalization LayerNormalization LeakyRelu MatMul Max Mul PRelu \
            Reciprocal ReduceMax ReduceMean ReduceSum Relu Reshape Resize Round Shape Sigmoid Sin \
            Softmax Softplus Sqrt Squeeze Sub Tanh Tile Transpose Unsqueeze Where",
    when: COREML_WHEN,
};

pub const NNAPI_LIST: List = List {
    source: NNAPI,
    plain: "Abs Add BatchNormalization Clip Concat Div Elu Exp Flatten Floor Identity LeakyRelu Log \
            LRN MatMul Max Min Mul Neg Pow PRelu ReduceMean Relu Sigmoid Sin Slice Sqrt Sub Tanh",
    when: NNAPI_WHEN,
};

pub const QNN_LIST: List = List {
    source: QNN,
    plain: "Abs Add And ArgMax ArgMin Asin Atan AveragePool BatchNormalization Cast Ceil Clip Concat \
            Conv ConvTranspose Cos DepthToSpace DequantizeLinear Div Elu Equal Erf Exp Expand \
            Flatten Floor Gather GatherElements Gelu GlobalAveragePool GlobalMaxPool Greater \
            GridSample HardSigmoid HardSwish Identity InstanceNormalization LayerNormalization \
            LeakyRelu Less Log LogSoftmax MatMul Max MaxPool Min Mul Neg Not Or Pad Pow PRelu \
            QuantizeLinear ReduceMax ReduceMean ReduceSum Relu Reshape Resize Round Sigmoid Sign Sin \
            Slice Softmax SpaceToDepth Split Sqrt Squeeze Sub Tanh Tile TopK Transpose Unsqueeze \
            Where",
    when: QNN_WHEN,
};

/// Operators with a builtin of their own; Erf would be a Flex operator.
pub const TFLITE_LIST: List = List {
    source: TFLITE,
    plain: "Abs Add And ArgMax ArgMin AveragePool BatchNormalization Cast Ceil Clip Concat Conv \
            ConvTranspose Cos CumSum DepthToSpace Div Elu Equal Exp Expand Flatten Floor Gather \
            GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool Greater HardSwish Identity \
            LayerNormalization LeakyRelu Less Log LogSoftmax MatMul Max MaxPool Min Mul Neg Not Or \
            Pad Pow PRelu ReduceMax ReduceMean ReduceMin ReduceSum Relu Reshape Resize Round Sigmoid \
            Sign Sin Slice Softmax SpaceToDepth Split Sqrt Squeeze Sub Tanh Tile TopK Transpose \
            Unsqueeze Where",
    when: &[],
};

pub const TENSORRT_LIST: List = List {
    source: TENSORRT,
    plain: "Abs Add And ArgMax ArgMin AveragePool BatchNormalization Cast Ceil Clip Concat \
            ConstantOfShape Conv ConvTranspose Cos CumSum DepthToSpace DequantizeLinear Div Dropout \
            Einsum Elu Equal Erf Exp Expand Flatten Floor Gather GatherElements GatherND Gelu Gemm \
            GlobalAveragePool GlobalMaxPool Greater GridSample GroupNormalization HardSigmoid \
            HardSwish Identity InstanceNormalization LayerNormalization LeakyRelu Less Log \
            LogSoftmax MatMul Max MaxPool Mean Min Mod Mul Neg Not Or Pad Pow PRelu QuantizeLinear \
            Range Reciprocal ReduceMax ReduceMean ReduceMin ReduceSum Relu Reshape Resize Round \
            Shape Sigmoid Sign Sin Slice Softmax SpaceToDepth Split Sqrt Squeeze Sub Tanh Tile TopK \
            Transpose Unsqueeze Where",
    when: &[],
};

pub const WEBGPU_LIST: List = List {
    source: WEBGPU,
    plain: "Abs Acos Add ArgMax ArgMin AveragePool BatchNormalization Cast Ceil Clip Concat Conv \
            ConvTranspose Cos CumSum DepthToSpace DequantizeLinear Div Einsum Elu Equal Erf Exp \
            Expand Flatten Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool \
            GlobalMaxPool Greater GridSample HardSigmoid Identity InstanceNormalization \
            LayerNormalization LeakyRelu Less Log MatMul Max MaxPool Min Mul Neg Not Pad Pow Range \
            Reciprocal ReduceMax ReduceMean ReduceMin ReduceSum Relu Reshape Resize Shape Sigmoid \
            Sin Slice Softmax Split Sqrt Squeeze Sub Tanh Tile Transpose Unsqueeze Where",
    when: &[],
};

pub const NCNN_LIST: List = List {
    source: NCNN,
    plain: "Abs Add AveragePool BatchNormalization Ceil Clip Concat Conv ConvTranspose Cos Div Elu \
            Erf Exp Flatten Floor Gelu Gemm GlobalAveragePool GlobalMaxPool HardSigmoid HardSwish \
            Identity LayerNormalization LeakyRelu Log MatMul Max MaxPool Min Mul Neg Pad Pow PRelu \
            ReduceMean ReduceSum Relu Resize Sigmoid Sin Slice Split Sqrt Squeeze Sub Tanh Tile \
            Unsqueeze",
    when: NCNN_WHEN,
};
