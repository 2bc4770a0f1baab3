//! temporary
use watchdog::*;
fn main() {
    let config = config::Config::load(std::env::args().nth(1).as_deref().map(std::path::Path::new)).unwrap();
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    rt.block_on(async {
        let (out, mut inbox) = outbox::outbox().unwrap();
        let m = sinks::metrics::Metrics::new(&config.entry_names()).unwrap();
        let lost = tick::gauges::LostHandles { slot: m.lost(outbox::Lost::Slot), thread: m.lost(outbox::Lost::Thread), lease: m.lost(outbox::Lost::Lease), segment: m.lost(outbox::Lost::Segment) };
        let g = tick::gauges::MetricGauges::new(m.tick(&config.entry_names()), lost);
        let d = daemon::Daemon::start(&config, &daemon::Wishes { kernel: Some(kernel::Options { btf: "/sys/kernel/btf/vmlinux".into(), cgroup_root: None, flows: 16384, debug: false }), state_dir: "/tmp/s/state".into() }, out, g).unwrap();
        eprintln!("adopted {}", d.adopted);
        let mut w = memory::Writer::new(std::path::Path::new("/tmp/s/state"), d.slate.clone()).unwrap();
        let mut r = sinks::events::Renderer::new(config.entry_names());
        loop {
            let batch = inbox.recv().await;
            w.write();
            for s in batch { match s.message { outbox::Message::Note(n) => println!("{}", r.note(s.at, &n, None)), o => println!("{o:?}") } }
        }
    });
}
