//! Loads the programs and attaches each signal by the first of its hooks that the kernel takes.

use std::error::Error;
use std::fs::File;
use std::io;

use aya::{
    Btf, Ebpf, EbpfLoader, Endianness,
    programs::{
        BtfTracePoint, CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, FExit, SockOps, UProbe,
    },
};

use caps::{CapSet, Capability};

use super::{Hook, Kernel, Missing, Options, Report, btf, cgroup, plaintext, state};

/// How a program is attached.
#[derive(Clone, Copy)]
enum Kind {
    CgroupIngress,
    CgroupEgress,
    SockOps,
    Tracepoint(&'static str),
    /// A kernel function returns.
    Exit(&'static str),
    /// Loaded only: processes are attached to one by one, while the daemon runs.
    Calls,
}

/// One way to get a signal.
pub(super) struct Way {
    pub(super) program: &'static str,
    pub(super) hook: &'static str,
    kind: Kind,
}

/// A signal, and the ways to get it, best first.
pub(super) struct Signal {
    pub(super) name: &'static str,
    /// Without it no lease can be seen at all.
    pub(super) required: bool,
    /// A signal without which this one would mislead.
    needs: Option<&'static str>,
    /// Fields without which its programs are of no use: of each list one must be there.
    fields: &'static [&'static [&'static str]],
    pub(super) ways: &'static [Way],
}

/// DESIGN's hook lists as far as this version carries programs for them.
pub(super) const SIGNALS: &[Signal] = &[
    Signal {
        name: "flow_start",
        required: true,
        needs: None,
        fields: &[],
        ways: &[Way {
            program: "flow_start",
            hook: "sock_ops",
            kind: Kind::SockOps,
        }],
    },
    Signal {
        name: "packets_in",
        required: true,
        needs: None,
        fields: &[],
        ways: &[Way {
            program: "packet_in",
            hook: "cgroup_skb ingress",
            kind: Kind::CgroupIngress,
        }],
    },
    Signal {
        name: "packets_out",
        required: true,
        needs: None,
        fields: &[],
        ways: &[Way {
            program: "packet_out",
            hook: "cgroup_skb egress",
            kind: Kind::CgroupEgress,
        }],
    },
    Signal {
        name: "reads",
        required: false,
        needs: None,
        fields: &[],
        ways: &[Way {
            program: "flow_read",
            hook: "tp_btf tcp_rcv_space_adjust",
            kind: Kind::Tracepoint("tcp_rcv_space_adjust"),
        }],
    },
    Signal {
        name: "writes",
        required: false,
        needs: None,
        fields: &[],
        ways: &[
            Way {
                program: "flow_write",
                hook: "tp_btf sock_send_length",
                kind: Kind::Tracepoint("sock_send_length"),
            },
            Way {
                program: "flow_sent",
                hook: "fexit tcp_sendmsg",
                kind: Kind::Exit("tcp_sendmsg"),
            },
        ],
    },
    Signal {
        name: "flow_state",
        required: true,
        needs: None,
        fields: &[],
        ways: &[Way {
            program: "flow_state",
            hook: "tp_btf inet_sock_set_state",
            kind: Kind::Tracepoint("inet_sock_set_state"),
        }],
    },
    Signal {
        name: "flow_end",
        required: false,
        needs: None,
        fields: &[],
        ways: &[Way {
            program: "flow_end",
            hook: "tp_btf tcp_destroy_sock",
            kind: Kind::Tracepoint("tcp_destroy_sock"),
        }],
    },
    Signal {
        name: "retransmits",
        required: false,
        needs: None,
        fields: &[],
        ways: &[Way {
            program: "flow_retransmit",
            hook: "tp_btf tcp_retransmit_skb",
            kind: Kind::Tracepoint("tcp_retransmit_skb"),
        }],
    },
    Signal {
        name: "switches",
        required: false,
        needs: None,
        fields: &[],
        ways: &[Way {
            program: "thread_switch",
            hook: "tp_btf sched_switch",
            kind: Kind::Tracepoint("sched_switch"),
        }],
    },
    Signal {
        name: "wakeups",
        required: false,
        // Of a thread that is seen to wake and never to run, one would think that it starves.
        needs: Some("switches"),
        fields: &[],
        ways: &[Way {
            program: "thread_wakeup",
            hook: "tp_btf sched_wakeup",
            kind: Kind::Tracepoint("sched_wakeup"),
        }],
    },
    Signal {
        name: "block",
        required: false,
        needs: None,
        fields: BLOCK,
        ways: &[Way {
            program: "block_issue",
            hook: "tp_btf block_rq_issue",
            kind: Kind::Tracepoint("block_rq_issue"),
        }],
    },
    Signal {
        name: "block",
        required: false,
        needs: None,
        fields: BLOCK,
        ways: &[Way {
            program: "block_complete",
            hook: "tp_btf block_rq_complete",
            kind: Kind::Tracepoint("block_rq_complete"),
        }],
    },
    Signal {
        name: "journal",
        required: false,
        needs: None,
        fields: JOURNAL,
        ways: &[Way {
            program: "journal_start",
            hook: "tp_btf jbd2_start_commit",
            kind: Kind::Tracepoint("jbd2_start_commit"),
        }],
    },
    Signal {
        name: "journal",
        required: false,
        needs: None,
        fields: JOURNAL,
        ways: &[Way {
            program: "journal_end",
            hook: "tp_btf jbd2_end_commit",
            kind: Kind::Tracepoint("jbd2_end_commit"),
        }],
    },
    Signal {
        name: plaintext::SIGNAL,
        required: false,
        // Which flow a stream is of is told by its reads and writes, as is where it stands.
        needs: Some("reads"),
        fields: &[],
        ways: &[Way {
            program: plaintext::RETURN,
            hook: "uprobes on SSL_read and SSL_write",
            kind: Kind::Calls,
        }],
    },
];

const BLOCK: &[&[&str]] = &[
    &["QUEUE_DISK", "REQUEST_DISK"],
    &["REQUEST_QUEUE"],
    &["DISK_MAJOR"],
    &["DISK_MINOR"],
];
const JOURNAL: &[&[&str]] = &[&["JOURNAL_DEVICE"], &["DEVICE_NUMBER"]];

/// The kernel's types, as aya wants them.
pub(super) fn types(options: &Options) -> Result<Btf, Missing> {
    Btf::parse_file(&options.btf, Endianness::default())
        .map_err(|error| Missing(format!("{}: {error}", options.btf.display())))
}

/// Loads the object, attaches every signal, maps the memory.
pub(super) fn load(options: &Options) -> Result<Kernel, Missing> {
    let facts = btf::facts(&options.btf)?;
    trim();
    if options.netns.is_some() {
        scoped(&facts.offsets)?;
    }
    let kernel_btf = types(options)?;
    let root = cgroup::root(options.cgroup_root.as_deref())?;
    let which = Object::of(&facts);
    let mut programs = object(which, options, &facts, &kernel_btf)?;
    if options.debug {
        log_programs(&mut programs);
    }
    let state = state::State::map(&mut programs, options.flows)?;
    let mut report = Report {
        follows_any_segment: which == Object::Looping,
        ..Report::default()
    };
    let wanted = |signal: &&Signal| {
        options.only.is_none_or(|only| only.contains(&signal.name))
            && (options.plaintext || signal.name != plaintext::SIGNAL)
    };
    for signal in SIGNALS.iter().filter(wanted) {
        attach_signal(
            &mut programs,
            signal,
            &facts.offsets,
            &kernel_btf,
            &root,
            &mut report,
        )?;
    }
    drop(kernel_btf);
    trim();
    Ok(super::assemble(state, report, programs))
}

/// Whether sockets can be told apart by network namespace.
fn scoped(offsets: &[u32]) -> Result<(), Missing> {
    let lacks = |global: &str| {
        let mut fields = btf::FIELDS.iter().zip(offsets);
        fields.any(|(field, offset)| field.global == global && *offset == btf::ABSENT)
    };
    if ["SOCK_NET", "NET_NS", "NS_INUM"].into_iter().any(lacks) {
        return Err(Missing(
            "this kernel's sockets do not tell their network namespace; remove scope.netns"
                .to_owned(),
        ));
    }
    Ok(())
}

/// How often the kernel programs' log is looked at.
const LOG_EVERY: std::time::Duration = std::time::Duration::from_millis(100);

/// Passes the kernel programs' log on to the daemon's, on a thread that ends with the process.
fn log_programs(programs: &mut Ebpf) {
    let mut logger = match aya_log::EbpfLogger::init(programs) {
        Ok(logger) => logger,
        Err(error) => {
            tracing::warn!(%error, "the kernel programs' log cannot be read");
            return;
        }
    };
    let spawned = std::thread::Builder::new()
        .name("probe-log".into())
        .stack_size(128 * 1024)
        .spawn(move || {
            loop {
                logger.flush();
                std::thread::park_timeout(LOG_EVERY);
            }
        });
    if let Err(error) = spawned {
        tracing::warn!(%error, "the kernel programs' log is not read");
    }
}

/// Gives back what reading the kernel's types took, 80 MB for a moment, before anything else is
/// allocated among it.
fn trim() {
    // SAFETY: has no preconditions.
    unsafe { libc::malloc_trim(0) };
}

/// Has the programs for kernels before 5.17 loaded on any, so that they can be tested on a new one.
const OLD_ENV: &str = "LEASE_WATCHDOG_OLD_PROGRAMS";

/// Which of the two objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// For 5.17 and later: it wants `bpf_loop`.
    Looping,
    /// For kernels before that; later ones take it too.
    Old,
}

impl Object {
    /// The one that is loaded on a kernel.
    #[must_use]
    pub fn of(facts: &btf::Facts) -> Self {
        if facts.has_loop && std::env::var_os(OLD_ENV).is_none() {
            Self::Looping
        } else {
            Self::Old
        }
    }
}

pub(super) fn object(
    which: Object,
    options: &Options,
    facts: &btf::Facts,
    kernel_btf: &Btf,
) -> Result<Ebpf, Missing> {
    let mut loader = EbpfLoader::new();
    loader.btf(Some(kernel_btf));
    for (field, offset) in btf::FIELDS.iter().zip(&facts.offsets) {
        loader.override_global(field.global, offset, true);
    }
    for ((global, _), count) in btf::ARGUMENTS.iter().zip(&facts.arguments) {
        loader.override_global(global, count, true);
    }
    let debug = u32::from(options.debug);
    loader.override_global("DEBUG", &debug, true);
    let netns = options.netns.unwrap_or(0);
    loader.override_global("SCOPE_NETNS", &netns, true);
    loader.map_max_entries("FLOWS", options.flows);
    loader.map_max_entries("FREE", options.flows);
    let bytes: &[u8] = match which {
        Object::Looping => aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/watchdog-ebpf")),
        Object::Old => {
            tracing::info!("the programs for kernels before 5.17 are loaded");
            // Besides those with a slot it notes those that are to get none.
            loader.map_max_entries("SOCKETS", options.flows.saturating_mul(2));
            aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/watchdog-ebpf-old"))
        }
    };
    loader
        .load(bytes)
        .map_err(|error| refused("the kernel refuses the eBPF maps or programs", &error))
}

/// What the kernel refuses of what cannot be done without, with the mend.
pub(super) fn refused(what: &str, error: &(dyn Error + 'static)) -> Missing {
    let Refusal { line, code } = Refusal::of(error);
    Missing(format!("{what}: {line}; {}", mend(code)))
}

/// What the kernel said of something that it refused.
#[derive(Debug)]
pub(super) struct Refusal {
    /// In one line.
    pub(super) line: String,
    /// The error number beneath it, if there is one.
    code: Option<i32>,
}

impl Refusal {
    fn of(error: &(dyn Error + 'static)) -> Self {
        let mut code = None;
        let mut next = Some(error);
        while let Some(error) = next {
            let os = error.downcast_ref::<io::Error>();
            code = os.and_then(io::Error::raw_os_error).or(code);
            next = error.source();
        }
        Self {
            line: chain(error),
            code,
        }
    }
}

impl From<String> for Refusal {
    fn from(line: String) -> Self {
        Self { line, code: None }
    }
}

/// What helps against a refusal with this error number.
fn mend(code: Option<i32>) -> String {
    if let Some(rights) = rights_missing() {
        return rights;
    }
    match code {
        Some(libc::ENOMEM) => {
            "give it more memory: raise the limit of its cgroup, or lower --flows".to_owned()
        }
        Some(libc::EPERM | libc::EACCES) => {
            "it has the rights: lockdown, seccomp or a security module refuses it; \
             `lease-watchdog doctor` looks further"
                .to_owned()
        }
        _ => "run on Linux 5.10 or later".to_owned(),
    }
}

fn attach_signal(
    programs: &mut Ebpf,
    signal: &Signal,
    offsets: &[u32],
    kernel_btf: &Btf,
    root: &File,
    report: &mut Report,
) -> Result<(), Missing> {
    let missing = signal.needs.filter(|needed| !report.has(needed));
    let lacks = missing
        .map(|needed| format!("without {needed} it would mislead"))
        .or_else(|| lacking(signal, offsets));
    let mut code = None;
    for way in signal.ways {
        let refusal = match &lacks {
            Some(lacks) => Some(lacks.clone().into()),
            None => attach(programs, way, kernel_btf, root).err(),
        };
        code = code.or(refusal.as_ref().and_then(|refusal: &Refusal| refusal.code));
        let refused = refusal.map(|refusal| refusal.line);
        if let Some(why) = &refused {
            tracing::warn!(signal = signal.name, hook = way.hook, why, "hook refused");
        } else {
            tracing::info!(signal = signal.name, hook = way.hook, "hook attached");
        }
        let attached = refused.is_none();
        report.hooks.push(Hook {
            signal: signal.name,
            hook: way.hook,
            refused,
        });
        if attached {
            return Ok(());
        }
    }
    if !signal.required {
        return Ok(());
    }
    let tried: Vec<String> = report
        .hooks
        .iter()
        .filter(|hook| hook.signal == signal.name)
        .map(|hook| {
            format!(
                "{}: {}",
                hook.hook,
                hook.refused.as_deref().unwrap_or_default()
            )
        })
        .collect();
    let mend = mend(code);
    // First: what a kernel says of a program may be long.
    Err(Missing(format!(
        "no hook for `{}` can be attached; {mend} ({})",
        signal.name,
        tried.join("; ")
    )))
}

/// What this thread may not that loading and attaching take, and the mend. A kernel names no right: it says that
/// programs are wrong, or that something is not permitted.
fn rights_missing() -> Option<String> {
    const NEEDED: [Capability; 3] = [
        Capability::CAP_BPF,
        Capability::CAP_PERFMON,
        Capability::CAP_NET_ADMIN,
    ];
    let has = caps::read(None, CapSet::Effective).ok()?;
    let stands_in = has.contains(&Capability::CAP_SYS_ADMIN);
    let lacks: Vec<String> = NEEDED
        .iter()
        .filter(|needed| !has.contains(*needed))
        .filter(|needed| !stands_in || **needed == Capability::CAP_NET_ADMIN)
        .map(ToString::to_string)
        .collect();
    (!lacks.is_empty()).then(|| format!("give {}, or run as root", lacks.join(" and ")))
}

/// What the kernel lacks for a signal, if anything.
pub(super) fn lacking(signal: &Signal, offsets: &[u32]) -> Option<String> {
    let has = |global: &&str| {
        btf::FIELDS
            .iter()
            .zip(offsets)
            .any(|(field, offset)| field.global == *global && *offset != btf::ABSENT)
    };
    let missing = signal
        .fields
        .iter()
        .find(|either| !either.iter().any(has))?;
    let named: Vec<String> = btf::FIELDS
        .iter()
        .filter(|field| missing.contains(&field.global))
        .map(|field| format!("{}.{}", field.of, field.name))
        .collect();
    Some(format!("this kernel has no {}", named.join(" or ")))
}

/// Loads and attaches one program.
pub(super) fn attach(
    programs: &mut Ebpf,
    way: &Way,
    kernel_btf: &Btf,
    root: &File,
) -> Result<(), Refusal> {
    let program = programs.program_mut(way.program).ok_or_else(|| {
        format!(
            "the programs for kernels before 5.17 have no {}",
            way.program
        )
    })?;
    let said = |error: aya::programs::ProgramError| Refusal::of(&error);
    match way.kind {
        Kind::CgroupIngress | Kind::CgroupEgress => {
            let program: &mut CgroupSkb = program.try_into().map_err(said)?;
            program.load().map_err(said)?;
            let side = if matches!(way.kind, Kind::CgroupIngress) {
                CgroupSkbAttachType::Ingress
            } else {
                CgroupSkbAttachType::Egress
            };
            // A link lets others attach as well whatever the mode says; bpf_link_create refuses
            // the flag for it.
            program
                .attach(root, side, CgroupAttachMode::Single)
                .map_err(said)?;
        }
        Kind::SockOps => {
            let program: &mut SockOps = program.try_into().map_err(said)?;
            program.load().map_err(said)?;
            program
                .attach(root, CgroupAttachMode::Single)
                .map_err(said)?;
        }
        Kind::Calls => {
            for name in plaintext::PROGRAMS {
                let program = programs
                    .program_mut(name)
                    .ok_or_else(|| format!("the object has no program {name}"))?;
                let program: &mut UProbe = program.try_into().map_err(said)?;
                program.load().map_err(said)?;
            }
        }
        Kind::Tracepoint(name) => {
            let program: &mut BtfTracePoint = program.try_into().map_err(said)?;
            program.load(name, kernel_btf).map_err(said)?;
            program.attach().map_err(said)?;
        }
        Kind::Exit(function) => {
            let program: &mut FExit = program.try_into().map_err(said)?;
            program.load(function, kernel_btf).map_err(said)?;
            program.attach().map_err(said)?;
        }
    }
    Ok(())
}

/// An error and its sources, in one line; of a verifier's log only the end, where the reason is.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut line = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if !line.contains(&text) {
            if !line.is_empty() {
                line.push_str(": ");
            }
            line.push_str(&text);
        }
        next = error.source();
    }
    if std::env::var_os("LEASE_WATCHDOG_VERIFIER_LOG").is_some() {
        return line;
    }
    let line = line.replace('\n', " ");
    let skip = line.chars().count().saturating_sub(1500);
    if skip == 0 {
        line
    } else {
        format!("… {}", line.chars().skip(skip).collect::<String>())
    }
}
