//! x
use watchdog::kernel::*;
fn main() {
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_writer(std::io::stderr)
        .init();
    let k = Kernel::load(&Options {
        btf: "/sys/kernel/btf/vmlinux".into(),
        cgroup_root: None,
        flows: 16384,
        debug: false,
    });
    match k {
        Ok(k) => {
            let mut t = [0u8; 65536];
            t[2181] = 1;
            t[12181] = 1;
            k.state.watch_ports(&t);
            println!("{:#?}", k.report.hooks);
            for _ in 0..60 {
                unsafe { libc::sleep(1) };
                println!("{:?}", k.state.losses());
                for i in 0..4 {
                    let s = unsafe { &*k.state.flows.at(i).unwrap() };
                    if s.state != 0 {
                        println!(
                            "{i} {} {}>{} role {} owner {} req {:x} {} reply {:x} {} ka {} gap {} rtt {} hs {:?} {:?} marks {}/{} reads {:?} writes {:?} life {:?}",
                            s.state,
                            s.local_port,
                            s.peer_port,
                            s.role,
                            s.owner,
                            s.requests.flags,
                            s.requests.messages,
                            s.replies.flags,
                            s.replies.messages,
                            s.requests.keepalives,
                            s.requests.keepalive_gap_ns,
                            s.replies.rtt_ns,
                            s.requests.handshake,
                            s.replies.handshake,
                            s.requests.marks,
                            s.replies.marks,
                            s.reads,
                            s.writes,
                            s.life
                        );
                    }
                }
            }
        }
        Err(e) => println!("ERR {e}"),
    }
}
