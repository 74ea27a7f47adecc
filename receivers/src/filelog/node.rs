//! From configuration to a running receiver.

use std::any::Any;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use tailwater_config::{ConfigError, Errors, KeyPath, Node, ProcessEnvironment, Section};
use tailwater_pipeline::checkpoint::CheckpointHandle;
use tailwater_pipeline::factory::{NodeCx, ReceiverFactory, ReceiverSettings, Succession};
use tailwater_pipeline::files::TailedFiles;
use tailwater_pipeline::lanes::Lane;
use tailwater_pipeline::reach::Reach;
use tailwater_pipeline::trial::ReceiverTrial;
use tailwater_pipeline::{BuildError, DropReason, ReceiverNode, ShardHandle, Source};
use tailwater_telemetry::metrics::{
    Accounting, FilesMetrics, LagMetrics, RECEIVER_TRANSPORT_FILE, ReceiverMetrics,
};

use super::catalog::{Action, Catalog, NewSettings, Rules};
use super::config::{FilelogConfig, StartAt};
use super::cutter::Cutter;
use super::desk::{Desk, Question};
use super::driver::{Driver, DriverParts, ShardLink, Update};
use super::file_attrs::FileAttributes;
use super::glob::Glob;
use super::lanes::Lanes;
use super::links::CONTAINER_LOGS;
use super::logfs::LogFs;
use super::open_files::within_limits;
use super::saver::Saver;
use super::settings::{READ_BYTES, Settings, resources_of};
use super::settled::SettledFiles;
use super::source::{Feedback, FileSource, SourceParts};
use super::tail::OnTruncate;
use super::trial::{LinesTrial, TrialParts};
use super::watch::{News, Waker, Watch};
use crate::input::constants::Constants;
use crate::operators::{BuildCx, Chain};

/// How long a file that was renamed out of the pattern is watched for late writes.
const LINGER_RENAMED: Duration = Duration::from_secs(60);
/// The same for a deleted file, whose writer may still hold it open.
const LINGER_DELETED: Duration = Duration::from_secs(10);

/// The factory of `file_log` (`filelog`).
pub fn factory() -> ReceiverFactory {
    ReceiverFactory {
        kind: "file_log",
        about: "tails files, with checkpoints that move by delivery",
        signals: &["logs"],
        decode,
    }
}

fn decode(node: &Node, path: &KeyPath, errors: &mut Errors) -> Option<Box<dyn ReceiverSettings>> {
    let settings = FilelogSettings::decode(node, path, errors)?;
    Some(Box::new(settings))
}

/// A decoded configuration.
pub struct FilelogSettings {
    config: FilelogConfig,
    path: KeyPath,
}

impl FilelogSettings {
    /// Reads the section. `None` only together with an error.
    pub fn decode(node: &Node, path: &KeyPath, errors: &mut Errors) -> Option<FilelogSettings> {
        let before = errors.len();
        let mut section = Section::new(node, path, errors);
        let config = FilelogConfig::decode(&mut section);
        section.finish();
        let wanted = FilelogSettings {
            config,
            path: path.clone(),
        };
        // Everything that can be wrong is found now, not when it is built.
        Chain::report(wanted.chain(), errors);
        Chain::report(wanted.header_chain(), errors);
        if let Err(e) = wanted.constants() {
            errors.push(*e);
        }
        (errors.len() == before).then_some(wanted)
    }

    fn chain(&self) -> Result<Chain, Errors> {
        let path = self.path.child("operators");
        Chain::build(
            &self.config.operators,
            &BuildCx {
                path,
                environment: &ProcessEnvironment,
            },
        )
    }

    fn header_chain(&self) -> Result<Chain, Errors> {
        let nodes = self
            .config
            .header
            .as_ref()
            .map_or(&[][..], |h| &h.metadata_operators);
        let path = self.path.child("header").child("metadata_operators");
        Chain::build(
            nodes,
            &BuildCx {
                path,
                environment: &ProcessEnvironment,
            },
        )
    }

    fn constants(&self) -> Result<Constants, Box<ConfigError>> {
        let (attributes, resource) = (&self.config.attributes, &self.config.resource);
        Constants::compile(&self.path, attributes, resource)
    }

    /// The settings of a lane; what the receiver may use is divided among its lanes.
    fn settings(
        &self,
        cx: &NodeCx,
        name: String,
        lanes: &Arc<Lanes>,
        lane: usize,
    ) -> Result<Settings, BuildError> {
        let c = &self.config;
        let constants = self
            .constants()
            .map_err(|e| build_error(cx, e.to_string()))?;
        let shards = cx.shards.max(1);
        let hold_bytes_max = c.deleted_files.hold_bytes_max / lanes.count() as u64;
        Ok(Settings {
            id: name.into(),
            namespace: lanes.namespace(&cx.id, lane).into(),
            lanes: lanes.clone(),
            lane,
            read_bytes: c.initial_buffer_bytes.unwrap_or(READ_BYTES).max(4096),
            head_bytes: c.fingerprint_bytes,
            charset: c.charset,
            frame: c.frame_spec(c.charset),
            keep_partial_blanks: c.trim.trailing
                && c.multiline.is_none()
                && c.operators
                    .first()
                    .is_some_and(|o| o.get("type").and_then(Node::as_str) == Some("container")),
            force_flush_period: c.force_flush_period,
            poll_interval: c.poll_interval,
            on_truncate: c.on_truncate,
            open_files_max: within_limits(c.open_files_max, lanes.count()).div_ceil(shards),
            open_files: Arc::default(),
            acquire_fs_lock: c.acquire_fs_lock,
            forget_pages: c.file_cache_advise,
            delete_after_read: c.delete_after_read,
            linger_renamed: LINGER_RENAMED,
            linger_deleted: LINGER_DELETED,
            hold_age_max: c.deleted_files.hold_age_max,
            hold_bytes_max: hold_bytes_max.div_ceil(shards as u64),
            attributes: c.file_attributes.clone(),
            header: c.header.as_ref().map(|h| h.pattern.clone()),
            resources: resources_of(&constants, &c.files),
            constants,
            polling: AtomicBool::new(false),
        })
    }
}

fn build_error(cx: &NodeCx, message: impl Into<String>) -> BuildError {
    BuildError::new(format!("receiver {:?}", cx.id), message)
}

impl ReceiverSettings for FilelogSettings {
    fn takes_in_again(&self) -> bool {
        true
    }

    fn storage(&self) -> Option<String> {
        self.config.storage.as_ref().map(ToString::to_string)
    }

    fn succession(&self, running: &dyn ReceiverSettings) -> Succession {
        let running = running.as_any().downcast_ref::<FilelogSettings>();
        match running.is_some_and(|r| r.config.storage == self.config.storage) {
            true => Succession::InPlace,
            false => Succession::Restart(
                "storage: where positions are stored cannot change while the agent runs, since those \
                 that there are would stay behind; restart the agent"
                    .to_owned(),
            ),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn build(&self, cx: &NodeCx, lanes: &[Lane]) -> Result<Vec<Box<dyn ReceiverNode>>, BuildError> {
        let fs = Arc::new(self.config.guarded_fs());
        let nodes = self.nodes(cx, lanes, &|_| fs.clone())?.into_iter();
        Ok(nodes.map(|node| Box::new(node) as _).collect())
    }

    fn trial(
        &self,
        cx: &NodeCx,
        path: &Path,
    ) -> Option<Result<Box<dyn ReceiverTrial>, BuildError>> {
        Some(self.try_lines(cx, path).map(|t| Box::new(t) as _))
    }

    fn reach(&self, reach: &mut Reach) {
        let c = &self.config;
        reach.user_names |= c.file_attributes.owner || c.file_attributes.group;
        let roots: BTreeSet<PathBuf> = c.include.iter().flat_map(Glob::roots).collect();
        let mut dirs = self.links_lead_to(&roots);
        if roots.iter().any(|root| root.starts_with("/var/log")) {
            let runtimes = CONTAINER_LOGS.iter().map(PathBuf::from);
            dirs.extend(runtimes.filter(|dir| dir.is_dir()));
        }
        dirs.extend(c.links.roots.iter().cloned());
        for dir in roots.into_iter().chain(dirs) {
            reach.logs_below(dir, c.delete_after_read);
        }
    }
}

impl FilelogSettings {
    fn try_lines(&self, cx: &NodeCx, path: &Path) -> Result<LinesTrial, BuildError> {
        let refused = |e: Errors| build_error(cx, e.to_string());
        let alone = Arc::new(Lanes::new(Vec::new()));
        let settings = self.settings(cx, cx.id.to_string(), &alone, 0)?;
        let wanted = &settings.attributes;
        let attributes = FileAttributes::of(&self.config.guarded_fs(), path, wanted);
        let (chain, header) = (self.chain(), self.header_chain());
        Ok(LinesTrial::new(TrialParts {
            resource: settings.resource_of(path).cloned(),
            settings,
            attributes,
            chain: chain.map_err(refused)?,
            header: header.map_err(refused)?,
            clock: cx.clock.clone(),
        }))
    }

    /// The directories outside of `roots` to which links among the files lead now.
    fn links_lead_to(&self, roots: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
        let found = self.config.finder().scan(&self.config.guarded_fs(), 0);
        let targets = found.files.iter().filter_map(|f| f.target.as_deref());
        let mut dirs: BTreeSet<PathBuf> = targets
            .filter_map(|target| target.parent().map(Path::to_path_buf))
            .collect();
        dirs.extend(found.dirs.iter().filter_map(|dir| dir.canonicalize().ok()));
        let roots: Vec<_> = roots.iter().filter_map(|r| r.canonicalize().ok()).collect();
        dirs.retain(|dir| !roots.iter().any(|root| dir.starts_with(root)));
        dirs
    }

    /// Builds the only node on a file system.
    ///
    /// # Errors
    /// As [`ReceiverSettings::build`].
    pub fn node(&self, cx: &NodeCx, fs: Arc<dyn LogFs>) -> Result<FilelogNode, BuildError> {
        self.lane(
            cx,
            cx.id.to_string(),
            Arc::new(Lanes::new(Vec::new())),
            0,
            fs,
        )
    }

    /// Builds the nodes of `lanes`, each on a file system.
    ///
    /// # Errors
    /// As [`ReceiverSettings::build`].
    pub fn nodes(
        &self,
        cx: &NodeCx,
        lanes: &[Lane],
        fs: &dyn Fn(&Lane) -> Arc<dyn LogFs>,
    ) -> Result<Vec<FilelogNode>, BuildError> {
        let exporters = lanes.iter().map(|lane| lane.exporter.clone()).collect();
        let shared = Arc::new(Lanes::new(exporters));
        let node = |(number, lane): (usize, &Lane)| {
            let cx = NodeCx {
                metrics: lane.metrics.clone(),
                budget: lane.budget.clone(),
                ..cx.clone()
            };
            self.lane(&cx, lane.name(&cx.id), shared.clone(), number, fs(lane))
        };
        lanes.iter().enumerate().map(node).collect()
    }

    fn lane(
        &self,
        cx: &NodeCx,
        name: String,
        lanes: Arc<Lanes>,
        lane: usize,
        fs: Arc<dyn LogFs>,
    ) -> Result<FilelogNode, BuildError> {
        let settings = Arc::new(self.settings(cx, name, &lanes, lane)?);
        let storage = self.config.storage.as_ref().map(|id| id.to_string());
        let store = cx.storages.open(storage.as_deref())?;
        let (feedback, from_shards) = unbounded();
        let (desk, questions) = Desk::new();
        let chains = (0..cx.shards.max(1)).map(|_| {
            let chain = self.chain().map_err(|e| build_error(cx, e.to_string()))?;
            let header = self
                .header_chain()
                .map_err(|e| build_error(cx, e.to_string()))?;
            Ok((chain, header))
        });
        Ok(FilelogNode {
            chains: chains.collect::<Result<Vec<_>, BuildError>>()?,
            config: self.config.clone(),
            metrics: ReceiverMetrics::new(&cx.metrics, &cx.id, RECEIVER_TRANSPORT_FILE),
            files: FilesMetrics::new(&cx.metrics, &cx.id),
            accounting: Accounting::new(&cx.metrics, "receiver", &cx.id, DropReason::NAMES),
            lag: LagMetrics::new(&cx.metrics, &cx.id, "all"),
            cx: cx.clone(),
            settings,
            store,
            fs,
            feedback,
            from_shards,
            desk: Arc::new(desk),
            questions,
            links: Vec::new(),
            begun: false,
            stop: Arc::default(),
            pause: Arc::default(),
            wake: None,
            thread: None,
        })
    }
}

/// A receiver that is built.
pub struct FilelogNode {
    cx: NodeCx,
    config: FilelogConfig,
    settings: Arc<Settings>,
    chains: Vec<(Chain, Chain)>,
    store: CheckpointHandle,
    fs: Arc<dyn LogFs>,
    feedback: Sender<Feedback>,
    from_shards: Receiver<Feedback>,
    desk: Arc<Desk>,
    questions: Receiver<Question>,
    links: Vec<ShardLink>,
    metrics: Arc<ReceiverMetrics>,
    files: Arc<FilesMetrics>,
    accounting: Arc<Accounting>,
    lag: Arc<LagMetrics>,
    /// It has a driver.
    begun: bool,
    stop: Arc<AtomicBool>,
    /// Ends the thread between two turns.
    pause: Arc<AtomicBool>,
    wake: Option<Waker>,
    thread: Option<FindThread>,
}

/// It gives the driver back.
type FindThread = JoinHandle<Option<Driver>>;

impl ReceiverNode for FilelogNode {
    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }

    fn source(&mut self, shard: &ShardHandle) -> Box<dyn Source> {
        let (actions, inbox) = unbounded();
        let (dirty, dirty_files) = unbounded();
        self.links.push(ShardLink {
            handle: shard.clone(),
            actions,
            dirty,
        });
        let (chain, header) = self.chains.pop().unwrap_or_default();
        let cutter = Cutter::new(
            self.settings.clone(),
            self.fs.clone(),
            chain,
            header,
            self.files.clone(),
        );
        let namespace = self.settings.namespace.clone();
        let saver = Saver::new(self.store.clone(), namespace, shard.waker.clone());
        Box::new(FileSource::new(SourceParts {
            settings: self.settings.clone(),
            clock: self.cx.clock.clone(),
            fs: self.fs.clone(),
            inbox,
            dirty: dirty_files,
            feedback: self.feedback.clone(),
            settled: SettledFiles::new(shard.waker.clone()),
            cutter,
            saver,
            budget: self.cx.budget.clone(),
            accounting: self.accounting.clone(),
            metrics: self.metrics.clone(),
            files: self.files.clone(),
        }))
    }

    fn start(&mut self) -> Result<(), BuildError> {
        self.arrange()?;
        let watch = Watch::new(self.config.watch);
        self.wake = Some(watch.waker());
        let driver = self.driver(Box::new(watch));
        let (stop, pause) = (self.stop.clone(), self.pause.clone());
        let thread = self.spawn(move || Some(driver.run(&stop, &pause)));
        self.thread = Some(thread.map_err(|e| build_error(&self.cx, format!("no thread: {e}")))?);
        self.desk.woken_by(self.wake.clone());
        Ok(())
    }

    /// The driver goes on in a new thread, which may reach what the caller may reach.
    fn take_over(&mut self, next: Box<dyn ReceiverNode>) {
        let Ok(next) = next.into_any().downcast::<FilelogNode>() else {
            tracing::error!(receiver = %self.settings.id, "it cannot go on as another kind of receiver");
            return;
        };
        let watch = (self.config.watch != next.config.watch).then(|| Watch::new(next.config.watch));
        let wake = watch.as_ref().map(Watch::waker);
        let mut update = self.update(*next);
        update.watch = watch.map(|w| Box::new(w) as _);
        let Some(before) = self.thread.take() else {
            // It did not begin yet, and will with these settings.
            return;
        };
        let paused = std::mem::take(&mut self.pause);
        let (stop, pause) = (self.stop.clone(), self.pause.clone());
        let (hand_over, handed_over) = bounded::<(FindThread, Update)>(1);
        let thread = self.spawn(move || {
            let (before, update) = handed_over.recv().ok()?;
            let mut driver = before.join().ok()??;
            driver.take_over(update);
            Some(driver.run(&stop, &pause))
        });
        match thread {
            Ok(thread) => {
                let _ = hand_over.send((before, update));
                self.thread = Some(thread);
                paused.store(true, Ordering::Release);
                self.wake.iter().for_each(Waker::wake);
                self.wake = wake.or(self.wake.take());
                self.desk.woken_by(self.wake.clone());
            }
            Err(error) => {
                tracing::error!(
                    receiver = %self.settings.id, %error,
                    "no thread: which files are found goes by the settings before"
                );
                (self.pause, self.thread) = (paused, Some(before));
            }
        }
    }

    fn files(&self) -> Option<Arc<dyn TailedFiles>> {
        Some(self.desk.clone())
    }

    fn stop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.desk.woken_by(None);
        if let Some(wake) = &self.wake {
            wake.wake();
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl FilelogNode {
    /// Brings the stored positions in line with the lanes of the receiver: once, before any of them
    /// has a driver.
    ///
    /// # Errors
    /// There is no room for those of a lane.
    pub fn arrange(&self) -> Result<(), BuildError> {
        let (lanes, wall_ns) = (&self.settings.lanes, self.cx.clock.wall_ns());
        let arranged = lanes.arrange(&self.store, &self.cx.id, wall_ns);
        arranged.map_err(|e| {
            let text = format!("the positions of another exporter cannot be stored: {e}");
            build_error(&self.cx, text)
        })
    }

    fn spawn(
        &self,
        run: impl FnOnce() -> Option<Driver> + Send + 'static,
    ) -> std::io::Result<FindThread> {
        let name = format!("find-{}", self.settings.id);
        std::thread::Builder::new().name(name).spawn(run)
    }

    /// Goes on with the settings of `next`: the sources take them over by themselves, the driver what is
    /// returned. The name stays, as does where positions are.
    pub fn update(&mut self, next: FilelogNode) -> Update {
        let FilelogNode {
            config,
            settings,
            mut chains,
            fs,
            ..
        } = next;
        let mut settings = Arc::into_inner(settings)
            .expect("a node without sources shares its settings with nobody");
        let running = &self.settings;
        settings.id = running.id.clone();
        settings.namespace = running.namespace.clone();
        settings.head_bytes = settings.head_bytes.max(running.head_bytes);
        settings.open_files = running.open_files.clone();
        settings.polling = AtomicBool::new(running.polling.load(Ordering::Acquire));
        let (lanes, lane) = (settings.lanes.clone(), settings.lane);
        lanes.succeed(&running.lanes, lane, &running.namespace, self.begun);
        if let Err(error) = lanes.note_gone(&self.store, &self.cx.id) {
            tracing::error!(receiver = %running.id, %error, "which exporters are gone is not noted");
        }
        (self.settings, self.config, self.fs) = (Arc::new(settings), config, fs);
        for link in &self.links {
            let next = NewSettings {
                settings: self.settings.clone(),
                fs: self.fs.clone(),
                chains: chains.pop().unwrap_or_default(),
            };
            let _ = link.actions.send(Action::Settings(Box::new(next)));
            link.handle.waker.wake();
        }
        self.chains = chains;
        Update {
            settings: self.settings.clone(),
            finder: self.config.finder(),
            rules: self.rules(),
            fs: self.fs.clone(),
            rescan_interval: self.config.rescan_interval,
            watch: None,
        }
    }

    fn rules(&self) -> Rules {
        let c = &self.config;
        let selects = c.finder();
        Rules {
            head_bytes: self.settings.head_bytes,
            // What a damaged store has lost may have been read, but that is no reason to skip it.
            from_beginning: c.start_at == StartAt::Beginning || self.store.opened().may_lack_keys(),
            gzip: c.compression,
            keep_offset: c.on_truncate == OnTruncate::Ignore,
            anew_when_cut: matches!(
                c.on_truncate,
                OnTruncate::Detect | OnTruncate::ReadWholeFile
            ),
            shards: self.links.len(),
            selects: Box::new(move |path| selects.matches(path)),
            started_ns: self.cx.clock.wall_ns(),
            open_files: self.settings.open_files.clone(),
            open_files_max: within_limits(c.open_files_max, self.settings.lanes.count()),
        }
    }

    /// What finds the files of the sources that were taken: once, after them. It does nothing by
    /// itself; the thread that [`ReceiverNode::start`] starts runs it.
    pub fn driver(&mut self, watch: Box<dyn News>) -> Driver {
        self.begun = true;
        let stored = Saver::load(&self.store, &self.settings.namespace);
        Driver::new(DriverParts {
            settings: self.settings.clone(),
            finder: self.config.finder(),
            watch,
            catalog: Catalog::new(self.rules(), self.fs.clone(), stored),
            shards: self.links.clone(),
            feedback: self.from_shards.clone(),
            questions: self.questions.clone(),
            clock: self.cx.clock.clone(),
            fs: self.fs.clone(),
            store: self.store.clone(),
            rescan_interval: self.config.rescan_interval,
            lag: self.lag.clone(),
            files: self.files.clone(),
        })
    }
}
