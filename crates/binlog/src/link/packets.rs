//! The protocol's packets over any stream of bytes: the codec of the driver's library, framed by tokio.

use std::io;

use futures_util::StreamExt;
use mysql_common::proto::codec::PacketCodec;
use mysql_common::proto::codec::error::PacketCodecError;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_util::bytes::BytesMut;
use tokio_util::codec::{Decoder, Framed};

/// What a server has to say before it sends its binlog is short; who is not known yet gets no more memory than this.
const LARGEST_ANSWER_BYTES: usize = 64 << 10;
/// The greatest `max_allowed_packet`, and room for the headers of an event of that size.
const LARGEST_EVENT_BYTES: usize = (1 << 30) + (1 << 16);
const READ_AHEAD_BYTES: usize = 64 << 10;

/// What packets go over: TCP, TLS over it, or a socket.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Wire for T {}

pub(super) struct Packets(Framed<Box<dyn Wire>, Codec>);

/// It counts packets, so that none is lost, made up or out of order.
pub(super) struct Codec {
    packets: PacketCodec,
    /// The packet at hand, as far as whole pieces of it have come.
    payload: Vec<u8>,
}

impl Packets {
    pub fn over(wire: Box<dyn Wire>) -> Packets {
        let mut packets = PacketCodec::default();
        packets.max_allowed_packet = LARGEST_ANSWER_BYTES;
        Packets::resume(wire, Codec { packets, payload: Vec::new() })
    }

    /// Goes on over another wire, made from the one before, with the same count of packets.
    pub fn resume(wire: Box<dyn Wire>, codec: Codec) -> Packets {
        Packets(Framed::with_capacity(wire, codec, READ_AHEAD_BYTES))
    }

    /// Gives the wire back.
    ///
    /// # Errors
    ///
    /// Bytes that came too early: somebody on the way put them before the encryption.
    pub fn into_parts(self) -> io::Result<(Box<dyn Wire>, Codec)> {
        if self.unfinished_bytes() > 0 {
            return Err(bad("data before the encryption began"));
        }
        let parts = self.0.into_parts();
        Ok((parts.io, parts.codec))
    }

    /// From here on a packet may be as large as an event.
    pub fn expect_events(&mut self) {
        self.0.codec_mut().packets.max_allowed_packet = LARGEST_EVENT_BYTES;
    }

    /// How much of the packet at hand has come.
    pub fn unfinished_bytes(&self) -> usize {
        self.0.read_buffer().len() + self.0.codec().payload.len()
    }

    /// The next whole payload. Dropping the future loses nothing.
    pub async fn read(&mut self) -> io::Result<Vec<u8>> {
        self.0.next().await.unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()))
    }

    /// Sends a payload as the next one of the exchange at hand.
    pub async fn write(&mut self, mut payload: &[u8]) -> io::Result<()> {
        let mut bytes = BytesMut::new();
        self.0.codec_mut().packets.encode(&mut payload, &mut bytes).map_err(broken)?;
        self.0.get_mut().write_all(&bytes).await?;
        self.0.get_mut().flush().await
    }

    /// Sends a payload that begins an exchange.
    pub async fn command(&mut self, payload: &[u8]) -> io::Result<()> {
        self.0.codec_mut().packets.reset_seq_id();
        self.write(payload).await
    }
}

impl Decoder for Codec {
    type Item = Vec<u8>;
    type Error = io::Error;

    fn decode(&mut self, bytes: &mut BytesMut) -> io::Result<Option<Vec<u8>>> {
        let whole = self.packets.decode(bytes, &mut self.payload).map_err(broken)?;
        Ok(whole.then(|| std::mem::take(&mut self.payload)))
    }

    /// Whoever hangs up in the middle of a packet has damaged nothing.
    fn decode_eof(&mut self, bytes: &mut BytesMut) -> io::Result<Option<Vec<u8>>> {
        match self.decode(bytes)? {
            None if !bytes.is_empty() || !self.payload.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            packet => Ok(packet),
        }
    }
}

fn broken(error: PacketCodecError) -> io::Error {
    match error {
        PacketCodecError::Io(error) => error,
        error => io::Error::new(io::ErrorKind::InvalidData, error),
    }
}

/// The server, or what stands between, does not speak the protocol.
pub(super) fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn pair() -> (Packets, tokio::io::DuplexStream) {
        let (near, far) = tokio::io::duplex(1 << 10);
        (Packets::over(Box::new(near)), far)
    }

    /// Every byte alone, and a reader that gives up waiting between them.
    #[tokio::test]
    async fn impatience_loses_nothing() {
        let (mut packets, mut far) = pair();
        let sent = [&[5, 0, 0, 0][..], b"first", &[0, 0, 0, 1], &[6, 0, 0, 2], b"second"].concat();
        let mut came = Vec::new();
        for byte in sent {
            far.write_all(&[byte]).await.unwrap();
            while let Ok(packet) = tokio::time::timeout(Duration::from_millis(1), packets.read()).await {
                came.push(packet.unwrap());
            }
        }
        assert_eq!(came, [b"first".to_vec(), vec![], b"second".to_vec()]);
    }

    /// What is longer than a packet goes on in the next, but only where events are expected.
    #[tokio::test]
    async fn events_may_be_long() {
        const FULL: usize = 0xff_ffff;
        for length in [FULL - 1, FULL, FULL + 5, 2 * FULL] {
            let ((mut packets, far), sent) = (pair(), (0..length).map(|i| (i % 253) as u8).collect::<Vec<_>>());
            let mut far = Packets::over(Box::new(far));
            far.expect_events();
            packets.expect_events();
            let (written, read) = tokio::join!(far.write(&sent), packets.read());
            written.unwrap();
            assert!(read.unwrap() == sent, "{length}");
        }
        let (mut packets, mut far) = pair();
        far.write_all(&[0, 0, 2, 0, 7]).await.unwrap();
        assert_eq!(packets.read().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn nonsense_is_an_error() {
        let (mut packets, mut far) = pair();
        far.write_all(&[1, 0, 0, 3, 9]).await.unwrap();
        assert_eq!(packets.read().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        for cut in [&[9, 0, 0, 0, 9][..], &[9, 0], &[]] {
            let (mut packets, mut far) = pair();
            far.write_all(cut).await.unwrap();
            drop(far);
            assert_eq!(packets.read().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{cut:?}");
        }
        // What comes in clear behind the greeting is not taken for what the encryption holds.
        let (mut packets, mut far) = pair();
        far.write_all(&[1, 0, 0, 0, 9, 1, 0, 0, 2, 0]).await.unwrap();
        packets.read().await.unwrap();
        assert!(packets.into_parts().is_err());
    }
}
