//! Small PC guests as bytes: multiboot images of straight-line code in 32-bit mode.

/// Address at which images are loaded.
const LOAD: u32 = 0x10_0000;
/// Size of the image's header.
const HEADER: u32 = 32;
/// Values of a header that is followed by load addresses.
const MAGIC: u32 = 0x1bad_b002;
const FLAGS: u32 = 1 << 16;
/// The first serial port.
const SERIAL: u16 = 0x3f8;
/// Port by which a multiboot guest ends itself.
const EXIT: u16 = 0xf4;

/// Code of a guest. It has no paging, no interrupts and no stack.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Guest(Vec<u8>);

impl Guest {
    /// No code.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a text to the serial port.
    pub fn print(self, text: &str) -> Self {
        text.bytes().fold(self, |guest, byte| guest.out8(SERIAL, byte))
    }

    /// Writes bytes of memory to the serial port.
    pub fn print_memory(self, address: u32, length: u32) -> Self {
        // mov al, [address]; mov dx, SERIAL; out dx, al
        let print = |guest: Self, at: u32| guest.code(&[0xa0]).word(at).dx(SERIAL).code(&[0xee]);
        (address..address + length).fold(self, print)
    }

    /// Reads a byte from a port and writes it to the serial port.
    pub fn print_port(self, port: u16) -> Self {
        self.dx(port).code(&[0xec]).dx(SERIAL).code(&[0xee])
    }

    /// Waits for a byte at the serial port and writes it there.
    pub fn echo(self) -> Self {
        // l: in al, dx; test al, 1; jz l
        let ready = self.dx(SERIAL + 5).code(&[0xec, 0xa8, 1, 0x74, 0xfb]);
        ready.print_port(SERIAL)
    }

    /// Writes a byte to a port.
    pub fn out8(self, port: u16, value: u8) -> Self {
        self.dx(port).code(&[0xb0, value, 0xee])
    }

    /// Writes four bytes to a port.
    pub fn out32(self, port: u16, value: u32) -> Self {
        self.dx(port).code(&[0xb8]).word(value).code(&[0xef])
    }

    /// Writes a byte to memory.
    pub fn store8(self, address: u32, value: u8) -> Self {
        self.code(&[0xc6, 0x05]).word(address).code(&[value])
    }

    /// Writes two bytes to memory.
    pub fn store16(self, address: u32, value: u16) -> Self {
        self.code(&[0x66, 0xc7, 0x05]).word(address).code(&value.to_le_bytes())
    }

    /// Writes four bytes to memory.
    pub fn store32(self, address: u32, value: u32) -> Self {
        self.code(&[0xc7, 0x05]).word(address).word(value)
    }

    /// Writes a text to memory.
    pub fn store_text(self, address: u32, text: &str) -> Self {
        (address..).zip(text.bytes()).fold(self, |guest, (at, byte)| guest.store8(at, byte))
    }

    /// Waits until two bytes of memory have a value.
    pub fn wait16(self, address: u32, value: u16) -> Self {
        // l: cmp word [address], value; jne l
        let compare = self.code(&[0x66, 0x81, 0x3d]).word(address).code(&value.to_le_bytes());
        compare.code(&[0x75, 0xf5])
    }

    /// Never ends.
    pub fn spin(self) -> Self {
        self.code(&[0xeb, 0xfe])
    }

    /// The image. After the code, the guest ends itself with exit code 1.
    pub fn image(self) -> Vec<u8> {
        let Self(code) = self.out8(EXIT, 0);
        let end = LOAD + HEADER + u32::try_from(code.len()).unwrap();
        let checksum = 0_u32.wrapping_sub(MAGIC).wrapping_sub(FLAGS);
        // The header's address, the load addresses, the end of .bss, the entry point.
        let header = [MAGIC, FLAGS, checksum, LOAD, LOAD, end, end, LOAD + HEADER];
        let mut image: Vec<u8> = header.into_iter().flat_map(u32::to_le_bytes).collect();
        image.extend(code);
        image
    }

    /// mov edx, port
    fn dx(self, port: u16) -> Self {
        self.code(&[0xba]).word(port.into())
    }

    fn word(self, value: u32) -> Self {
        self.code(&value.to_le_bytes())
    }

    fn code(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }
}
