//! Bytecode of rules: what the kernel executes, as a closed list of expressions, on the wire.
//!
//! Between [`ringfence_ruleset::Rule`] and the wire on purpose: `rule` translates between rules and expressions
//! without knowing bytes, and two rules are the same to the kernel exactly where their expressions are equal.

use ringfence_ruleset::{Name, Verdict};

use crate::uapi::{attribute as a, value as v};
use crate::wire::{Attributes, Malformed, Writer, be32, text};

/// One step of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expression {
    /// Loads a property of the packet that is not in the packet.
    Meta { key: u32, register: u32 },
    /// Loads a property of the connection.
    Ct {
        key: u32,
        direction: Option<u8>,
        register: u32,
    },
    /// Loads bytes of the packet.
    Payload {
        base: u32,
        offset: u32,
        length: u32,
        register: u32,
    },
    /// Compares and stops where it does not hold.
    Compare {
        register: u32,
        operation: u32,
        value: Vec<u8>,
    },
    /// Keeps the bits of the mask.
    Mask { register: u32, mask: Vec<u8> },
    /// Stops where the set does not hold the value.
    Lookup { register: u32, set: Name },
    /// Counts.
    Counter { name: Name },
    /// Loads the type of the source address.
    SourceType { register: u32 },
    /// Decides.
    Verdict(Verdict),
}

/// Why an expression was not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unread {
    /// The bytes do not follow the format.
    Malformed,
    /// They do, but it is nothing that Ringfence writes; in words.
    Foreign(String),
}

impl From<Malformed> for Unread {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl Expression {
    /// Appends it, as an element of a rule's list.
    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.nest(a::LIST_ELEM, |writer| {
            writer.text(a::EXPR_NAME, self.name());
            writer.nest(a::EXPR_DATA, |writer| self.write_data(writer));
        });
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Meta { .. } => "meta",
            Self::Ct { .. } => "ct",
            Self::Payload { .. } => "payload",
            Self::Compare { .. } => "cmp",
            Self::Mask { .. } => "bitwise",
            Self::Lookup { .. } => "lookup",
            Self::Counter { .. } => "objref",
            Self::SourceType { .. } => "fib",
            Self::Verdict(_) => "immediate",
        }
    }

    /// The attributes, in the order in which `nft` sends them.
    fn write_data(&self, writer: &mut Writer) {
        match self {
            Self::Meta { key, register } => {
                writer.be32(a::META_KEY, *key);
                writer.be32(a::META_DREG, *register);
            }
            Self::Ct {
                key,
                direction,
                register,
            } => {
                writer.be32(a::CT_KEY, *key);
                writer.be32(a::CT_DREG, *register);
                if let Some(direction) = direction {
                    writer.u8(a::CT_DIRECTION, *direction);
                }
            }
            Self::Payload {
                base,
                offset,
                length,
                register,
            } => {
                writer.be32(a::PAYLOAD_DREG, *register);
                writer.be32(a::PAYLOAD_BASE, *base);
                writer.be32(a::PAYLOAD_OFFSET, *offset);
                writer.be32(a::PAYLOAD_LEN, *length);
            }
            Self::Compare {
                register,
                operation,
                value,
            } => {
                writer.be32(a::CMP_SREG, *register);
                writer.be32(a::CMP_OP, *operation);
                writer.nest(a::CMP_DATA, |writer| writer.bytes_attribute(a::DATA_VALUE, value));
            }
            Self::Mask { register, mask } => {
                writer.be32(a::BITWISE_SREG, *register);
                writer.be32(a::BITWISE_DREG, *register);
                // Masks are those of this program: as long as an address at most.
                writer.be32(a::BITWISE_LEN, u32::try_from(mask.len()).unwrap_or(u32::MAX));
                writer.nest(a::BITWISE_MASK, |writer| writer.bytes_attribute(a::DATA_VALUE, mask));
                writer.nest(a::BITWISE_XOR, |writer| {
                    writer.bytes_attribute(a::DATA_VALUE, &vec![0; mask.len()]);
                });
            }
            // nft adds NFTA_LOOKUP_SET_ID for a set of the same batch. The kernel asks for it only where it finds no
            // set of that name, and sets of the batch have theirs already.
            Self::Lookup { register, set } => {
                writer.be32(a::LOOKUP_SREG, *register);
                writer.text(a::LOOKUP_SET, set.as_str());
            }
            Self::Counter { name } => {
                writer.be32(a::OBJREF_IMM_TYPE, v::OBJECT_COUNTER);
                // Without the byte 0 at the end, as nft does.
                writer.bytes_attribute(a::OBJREF_IMM_NAME, name.as_str().as_bytes());
            }
            Self::SourceType { register } => {
                writer.be32(a::FIB_FLAGS, v::FIB_F_SADDR);
                writer.be32(a::FIB_RESULT, v::FIB_RESULT_ADDRTYPE);
                writer.be32(a::FIB_DREG, *register);
            }
            Self::Verdict(verdict) => {
                writer.be32(a::IMMEDIATE_DREG, v::REG_VERDICT);
                writer.nest(a::IMMEDIATE_DATA, |writer| {
                    writer.nest(a::DATA_VERDICT, |writer| write_verdict(writer, verdict));
                });
            }
        }
    }

    /// Reads the content of one list element.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Unread> {
        let mut name = "";
        let mut data: &[u8] = &[];
        for attribute in Attributes(bytes) {
            match attribute? {
                (a::EXPR_NAME, payload) => name = text(payload)?,
                (a::EXPR_DATA, payload) => data = payload,
                (other, _) => return Err(Unread::Foreign(format!("attribute {other} of an expression"))),
            }
        }
        let fields = Fields::of(name, data)?;
        match name {
            "meta" => fields.only(&[a::META_KEY, a::META_DREG])?.meta(),
            "ct" => fields.only(&[a::CT_KEY, a::CT_DREG, a::CT_DIRECTION])?.ct(),
            "payload" => fields
                .only(&[a::PAYLOAD_DREG, a::PAYLOAD_BASE, a::PAYLOAD_OFFSET, a::PAYLOAD_LEN])?
                .payload(),
            "cmp" => fields.only(&[a::CMP_SREG, a::CMP_OP, a::CMP_DATA])?.compare(),
            "bitwise" => fields
                .only(&[
                    a::BITWISE_SREG,
                    a::BITWISE_DREG,
                    a::BITWISE_LEN,
                    a::BITWISE_MASK,
                    a::BITWISE_XOR,
                    a::BITWISE_OP,
                ])?
                .mask(),
            "lookup" => fields.only(&[a::LOOKUP_SET, a::LOOKUP_SREG, a::LOOKUP_FLAGS])?.lookup(),
            "objref" => fields.only(&[a::OBJREF_IMM_TYPE, a::OBJREF_IMM_NAME])?.counter(),
            "fib" => fields.only(&[a::FIB_DREG, a::FIB_RESULT, a::FIB_FLAGS])?.source_type(),
            "immediate" => fields.only(&[a::IMMEDIATE_DREG, a::IMMEDIATE_DATA])?.verdict(),
            other => Err(Unread::Foreign(format!("expression {other:?}"))),
        }
    }
}

fn write_verdict(writer: &mut Writer, verdict: &Verdict) {
    let (code, chain) = match verdict {
        Verdict::Accept => (v::ACCEPT, None),
        Verdict::Drop => (v::DROP, None),
        Verdict::Goto(chain) => (v::GOTO, Some(chain)),
        Verdict::Jump(chain) => (v::JUMP, Some(chain)),
    };
    writer.be32(a::VERDICT_CODE, code);
    if let Some(chain) = chain {
        writer.text(a::VERDICT_CHAIN, chain.as_str());
    }
}

/// The attributes of one expression.
struct Fields<'a> {
    expression: &'a str,
    all: Vec<(u16, &'a [u8])>,
}

impl<'a> Fields<'a> {
    fn of(expression: &'a str, data: &'a [u8]) -> Result<Self, Malformed> {
        Ok(Self {
            expression,
            all: Attributes(data).collect::<Result<_, _>>()?,
        })
    }

    fn foreign(&self, what: &str) -> Unread {
        Unread::Foreign(format!("{what} of expression {:?}", self.expression))
    }

    /// Refuses attributes that Ringfence would never write: they change the meaning.
    fn only(self, known: &[u16]) -> Result<Self, Unread> {
        match self.all.iter().find(|(kind, _)| !known.contains(kind)) {
            Some((kind, _)) => Err(self.foreign(&format!("attribute {kind}"))),
            None => Ok(self),
        }
    }

    fn get(&self, kind: u16) -> Option<&'a [u8]> {
        self.all.iter().find(|(it, _)| *it == kind).map(|(_, payload)| *payload)
    }

    fn number(&self, kind: u16) -> Result<u32, Unread> {
        match self.get(kind) {
            Some(payload) => Ok(be32(payload)?),
            None => Err(self.foreign(&format!("missing attribute {kind}"))),
        }
    }

    fn name(&self, kind: u16) -> Result<Name, Unread> {
        let text = text(self.get(kind).unwrap_or_default())?;
        let name = Name::new(text);
        if name.as_str() == text {
            Ok(name)
        } else {
            Err(self.foreign(&format!("name {text:?}")))
        }
    }

    /// The bytes inside of a nested data attribute.
    fn data(&self, kind: u16) -> Result<Vec<u8>, Unread> {
        let inner: Vec<_> = Attributes(self.get(kind).unwrap_or_default()).collect::<Result<_, _>>()?;
        match inner[..] {
            [(a::DATA_VALUE, value)] => Ok(value.to_vec()),
            _ => Err(self.foreign("data")),
        }
    }

    fn expect(&self, kind: u16, expected: u32) -> Result<(), Unread> {
        match self.get(kind) {
            Some(payload) if be32(payload)? != expected => Err(self.foreign(&format!("value of attribute {kind}"))),
            _ => Ok(()),
        }
    }

    fn meta(&self) -> Result<Expression, Unread> {
        Ok(Expression::Meta {
            key: self.number(a::META_KEY)?,
            register: self.number(a::META_DREG)?,
        })
    }

    fn ct(&self) -> Result<Expression, Unread> {
        let direction = match self.get(a::CT_DIRECTION) {
            None => None,
            Some([direction]) => Some(*direction),
            Some(_) => return Err(Unread::Malformed),
        };
        Ok(Expression::Ct {
            key: self.number(a::CT_KEY)?,
            direction,
            register: self.number(a::CT_DREG)?,
        })
    }

    fn payload(&self) -> Result<Expression, Unread> {
        Ok(Expression::Payload {
            base: self.number(a::PAYLOAD_BASE)?,
            offset: self.number(a::PAYLOAD_OFFSET)?,
            length: self.number(a::PAYLOAD_LEN)?,
            register: self.number(a::PAYLOAD_DREG)?,
        })
    }

    fn compare(&self) -> Result<Expression, Unread> {
        Ok(Expression::Compare {
            register: self.number(a::CMP_SREG)?,
            operation: self.number(a::CMP_OP)?,
            value: self.data(a::CMP_DATA)?,
        })
    }

    fn mask(&self) -> Result<Expression, Unread> {
        self.expect(a::BITWISE_OP, 0)?;
        let (register, mask) = (self.number(a::BITWISE_SREG)?, self.data(a::BITWISE_MASK)?);
        let plain = self.number(a::BITWISE_DREG)? == register
            && usize::try_from(self.number(a::BITWISE_LEN)?) == Ok(mask.len())
            && self.data(a::BITWISE_XOR)?.iter().all(|byte| *byte == 0);
        if plain {
            Ok(Expression::Mask { register, mask })
        } else {
            Err(self.foreign("operation"))
        }
    }

    fn lookup(&self) -> Result<Expression, Unread> {
        // 1 would be the inversion.
        self.expect(a::LOOKUP_FLAGS, 0)?;
        Ok(Expression::Lookup {
            register: self.number(a::LOOKUP_SREG)?,
            set: self.name(a::LOOKUP_SET)?,
        })
    }

    fn counter(&self) -> Result<Expression, Unread> {
        self.expect(a::OBJREF_IMM_TYPE, v::OBJECT_COUNTER)?;
        Ok(Expression::Counter {
            name: self.name(a::OBJREF_IMM_NAME)?,
        })
    }

    fn source_type(&self) -> Result<Expression, Unread> {
        if (self.number(a::FIB_RESULT)?, self.number(a::FIB_FLAGS)?) == (v::FIB_RESULT_ADDRTYPE, v::FIB_F_SADDR) {
            Ok(Expression::SourceType {
                register: self.number(a::FIB_DREG)?,
            })
        } else {
            Err(self.foreign("operation"))
        }
    }

    fn verdict(&self) -> Result<Expression, Unread> {
        if self.number(a::IMMEDIATE_DREG)? != v::REG_VERDICT {
            return Err(self.foreign("register"));
        }
        let outer = Fields::of(self.expression, self.get(a::IMMEDIATE_DATA).unwrap_or_default())?;
        let inner = Fields::of(self.expression, outer.get(a::DATA_VERDICT).unwrap_or_default())?;
        let verdict = match (inner.number(a::VERDICT_CODE)?, inner.get(a::VERDICT_CHAIN)) {
            (v::ACCEPT, None) => Verdict::Accept,
            (v::DROP, None) => Verdict::Drop,
            (v::GOTO, Some(_)) => Verdict::Goto(inner.name(a::VERDICT_CHAIN)?),
            (v::JUMP, Some(_)) => Verdict::Jump(inner.name(a::VERDICT_CHAIN)?),
            (code, _) => return Err(self.foreign(&format!("verdict {code}"))),
        };
        Ok(Expression::Verdict(verdict))
    }
}
