//! The codec of the services: prost, with a limit on the memory that a small message can take.

use std::marker::PhantomData;

use bytes::{Buf as _, Bytes};
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, skip_field};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::ProstEncoder;

/// Largest number of top-level fields of one message. An empty tensor takes two bytes on the wire
/// and some hundred in memory: without a limit, 16 MiB of them would become gigabytes.
pub const MAX_FIELDS: usize = 16_384;

/// Encodes and decodes messages with a limit on the number of fields.
#[derive(Debug, Clone)]
pub struct BoundedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for BoundedCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Message + Send + 'static, U: Message + Default + Send + 'static> Codec
    for BoundedCodec<T, U>
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder(PhantomData)
    }
}

/// Decodes messages with a limit on the number of fields.
#[derive(Debug, Clone)]
pub struct BoundedDecoder<U>(PhantomData<U>);

impl<U: Message + Default> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let bytes = buf.copy_to_bytes(buf.remaining());
        check_field_count(bytes.clone())?;
        let message = U::decode(bytes);
        message.map(Some).map_err(|e| {
            Status::invalid_argument(format!("the message is not what the method takes: {e}"))
        })
    }
}

fn check_field_count(mut bytes: Bytes) -> Result<(), Status> {
    let malformed = |e| Status::invalid_argument(format!("the message is not protobuf: {e}"));
    let mut fields = 0;
    while bytes.has_remaining() {
        fields += 1;
        if fields > MAX_FIELDS {
            return Err(Status::invalid_argument(format!(
                "the message has more than {MAX_FIELDS} tensors and fields"
            )));
        }
        let (tag, wire): (u32, WireType) = decode_key(&mut bytes).map_err(malformed)?;
        skip_field(wire, tag, &mut bytes, DecodeContext::default()).map_err(malformed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::ModelInferRequest;
    use crate::inference::model_infer_request::InferInputTensor;

    #[test]
    fn many_empty_tensors_are_refused_before_they_are_built() {
        let request = |n| ModelInferRequest {
            inputs: vec![InferInputTensor::default(); n],
            ..Default::default()
        };
        assert!(check_field_count(request(MAX_FIELDS).encode_to_vec().into()).is_ok());
        let error = check_field_count(request(MAX_FIELDS + 1).encode_to_vec().into()).unwrap_err();
        assert_eq!(error.code(), tonic::Code::InvalidArgument);
        assert_eq!(
            check_field_count(Bytes::from_static(&[0x0a, 0xff])).unwrap_err().code(),
            tonic::Code::InvalidArgument
        );
    }
}
