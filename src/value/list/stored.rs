//! A block as a long list keeps it: open, or far from both ends, compressed (`list-compress-depth`).

use super::block::Block;
use crate::base::size_class::size_class;
use crate::encoding::entry::Encoded;
use crate::encoding::{listpack, lzf};

/// Redis leaves a node alone that has fewer bytes, or whose compressed form saves no more than these.
const LEAST_BYTES: usize = 48;
const LEAST_SAVING: usize = 8;

/// A block of a list with many.
#[derive(Clone)]
pub enum Stored {
    Open(Block),
    Compressed(Compressed),
}

// Lists that compress nothing pay nothing.
const _: () = assert!(size_of::<Stored>() == size_of::<Block>());

/// The LZF form of what an RDB file holds for a block, so that saving it needs no unpacking.
#[derive(Clone)]
pub struct Compressed {
    lzf: Box<[u8]>,
    /// Of what is compressed.
    bytes: u32,
    /// Elements; 0: a single one that stands by itself, and without the frame of a listpack.
    count: u32,
}

/// Either form, for reading.
#[derive(Clone, Copy)]
pub enum View<'a> {
    Open(&'a Block),
    Compressed(&'a Compressed),
}

impl Stored {
    #[inline]
    pub fn view(&self) -> View<'_> {
        match self {
            Stored::Open(block) => View::Open(block),
            Stored::Compressed(compressed) => View::Compressed(compressed),
        }
    }

    #[inline]
    pub fn count(&self) -> usize {
        self.view().count()
    }

    /// The block, opened for good if it is not.
    #[inline]
    pub fn open(&mut self) -> &mut Block {
        if let Stored::Compressed(compressed) = self {
            *self = Stored::Open(compressed.unpack());
        }
        match self {
            Stored::Open(block) => block,
            Stored::Compressed(_) => unreachable!("just opened"),
        }
    }

    /// Compresses an open block if that is worth it. `alone`: the only element, if it stands by itself.
    pub fn compress(&mut self, alone: impl FnOnce(&Block) -> Option<&[u8]>) {
        if let Stored::Open(block) = self
            && let Some(compressed) = Compressed::of(block, alone(block))
        {
            *self = Stored::Compressed(compressed);
        }
    }
}

impl Compressed {
    fn of(block: &Block, alone: Option<&[u8]>) -> Option<Self> {
        let mut image = Vec::new();
        let plain = alone.unwrap_or_else(|| {
            listpack::write(block.entries(), block.count(), &mut image);
            &image
        });
        if plain.len() < LEAST_BYTES {
            return None;
        }
        // Larger ones, which `proto-max-bulk-len` may allow, stay as they are.
        let bytes = u32::try_from(plain.len()).ok()?;
        let mut lzf = Vec::new();
        lzf::compress(plain, plain.len() - LEAST_SAVING - 1, &mut lzf).then(|| Self {
            lzf: lzf.into_boxed_slice(),
            bytes,
            count: if alone.is_some() { 0 } else { block.count() as u32 },
        })
    }

    pub fn count(&self) -> usize {
        self.count.max(1) as usize
    }

    /// Whether this is one element without a listpack around it.
    pub fn is_alone(&self) -> bool {
        self.count == 0
    }

    pub fn lzf(&self) -> &[u8] {
        &self.lzf
    }

    /// Bytes that [`lzf`](Self::lzf) stands for.
    pub fn bytes(&self) -> usize {
        self.bytes as usize
    }

    fn unpack(&self) -> Block {
        let mut bytes = Vec::with_capacity(size_class(self.bytes()));
        assert!(lzf::decompress_to(&self.lzf, self.bytes(), &mut bytes), "we compressed it");
        if self.is_alone() {
            let mut block = Block::default();
            block.push_back(&Encoded::text(&bytes));
            return block;
        }
        Block::of_image(bytes, self.count)
    }
}

impl<'a> View<'a> {
    #[inline]
    pub fn count(self) -> usize {
        match self {
            View::Open(block) => block.count(),
            View::Compressed(compressed) => compressed.count(),
        }
    }

    /// Bytes of the block's entries; of a compressed element that stands by itself, its own.
    #[inline]
    pub fn entries_bytes(self) -> usize {
        match self {
            View::Open(block) => block.entries().len(),
            View::Compressed(compressed) if compressed.is_alone() => compressed.bytes(),
            View::Compressed(compressed) => compressed.bytes() - listpack::OVERHEAD,
        }
    }

    pub fn memory_bytes(self) -> usize {
        match self {
            View::Open(block) => block.memory_bytes(),
            View::Compressed(compressed) => size_class(compressed.lzf.len()),
        }
    }

    /// The block, unpacked into `room` if it is compressed.
    #[inline]
    pub fn read(self, room: &'a mut Option<Block>) -> &'a Block {
        match self {
            View::Open(block) => block,
            View::Compressed(compressed) => room.insert(compressed.unpack()),
        }
    }
}
