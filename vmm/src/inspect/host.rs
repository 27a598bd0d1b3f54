//! `vmm inspect --host`: the processors that guests can have.

use std::fmt::{self, Display};

use nerite_machine::{Processors, processors};
use serde_json::{Value, json};

use crate::cli::InspectArgs;
use crate::error::{Error, one_line};
use crate::options::SandboxOptions;
use crate::output;

/// Prints what `--cpu` takes, for each hypervisor.
pub(super) fn inspect(args: &InspectArgs) -> Result<u8, Error> {
    if args.sandbox != SandboxOptions::default() {
        let reason =
            "--host reads nothing that is not trusted: leave out the options of the sandbox";
        return Err(Error::Usage(reason.to_owned()));
    }
    let processors = processors();
    if args.json {
        let all: Vec<_> = processors.iter().map(json).collect();
        output::print(format_args!("{}\n", json!({ "format": "host", "hypervisors": all })))?;
    } else {
        output::print(ForPeople(&processors))?;
    }
    Ok(0)
}

fn json(processors: &Processors) -> Value {
    let Processors { hypervisor, restriction, offer } = processors;
    match offer {
        Ok(offer) => json!({
            "name": hypervisor,
            "restriction": restriction,
            "bases": offer.bases,
            "optional": offer.optional,
            "fixed": offer.fixed,
            "absent": offer.absent,
        }),
        Err(error) => json!({ "name": hypervisor, "error": one_line(error) }),
    }
}

/// Columns of a terminal that is as narrow as they come.
const WIDTH: usize = 80;
/// Column at which values begin.
const INDENT: usize = 16;

struct ForPeople<'a>(&'a [Processors]);

impl Display for ForPeople<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CPU features for --cpu, as BASE,+name,-name; a guest has those of `host` without it.\n")?;
        for Processors { hypervisor, restriction, offer } in self.0 {
            writeln!(f)?;
            let offer = match offer {
                Ok(offer) => offer,
                Err(error) => {
                    line(f, hypervisor, &format!("cannot be used: {}", one_line(error)))?;
                    continue;
                }
            };
            line(f, hypervisor, restriction.as_deref().unwrap_or("usable"))?;
            for (name, list) in [
                ("  bases", &offer.bases),
                ("  on or off", &offer.optional),
                ("  always on", &offer.fixed),
            ] {
                line(f, name, &list.join(" "))?;
            }
            let more = format!("{} others, which --json lists", offer.absent.len());
            line(f, "  never", &more)?;
        }
        Ok(())
    }
}

/// Writes a name and words, wrapped.
fn line(f: &mut fmt::Formatter<'_>, name: &str, words: &str) -> fmt::Result {
    write!(f, "{name:<INDENT$}")?;
    let mut column = INDENT;
    for (place, word) in words.split(' ').enumerate() {
        let end = column.saturating_add(word.len());
        if place > 0 && end >= WIDTH {
            write!(f, "\n{:INDENT$}", "")?;
            column = INDENT;
        } else if place > 0 {
            f.write_str(" ")?;
            column = column.saturating_add(1);
        }
        f.write_str(word)?;
        column = column.saturating_add(word.len());
    }
    writeln!(f)
}

#[cfg(test)]
mod tests {
    use nerite_machine::nerite_arch::cpuid::Offer;

    use super::*;

    #[test]
    fn lists_are_wrapped_below_their_names() {
        let names: Vec<&'static str> = vec!["x86-64-v2-and-more"; 8];
        let offer = Offer { optional: names, ..Offer::default() };
        let all = [Processors { hypervisor: "KVM", restriction: None, offer: Ok(offer) }];
        let text = ForPeople(&all).to_string();
        let lines: Vec<_> = text.lines().filter(|line| line.contains("x86-64-v2")).collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[0].starts_with("  on or off     x86"), "{text}");
        assert!(lines[1].starts_with(&format!("{:INDENT$}x86", "")), "{text}");
        assert!(text.lines().skip(1).all(|line| line.len() <= WIDTH), "{text}");
    }
}
