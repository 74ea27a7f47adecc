//! What the help of commands says below their options.

/// Of the program.
pub const AFTER_HELP: &str = "\
Examples:
  tailwater demo                             see it work, no config and no server needed
  tailwater up --loki http://loki:3100       tail the containers of this machine
  tailwater validate --config agent.yaml     all mistakes of a file at once
  tailwater try --config agent.yaml --input app.log    what becomes of lines, step by step
  tailwater --config agent.yaml              run it, as the OpenTelemetry Collector is run
  tailwater status                           ask it, once service::admin says where it listens

Positions of files are kept in TAILWATER_STATE_DIR, which is /var/lib/tailwater for root and
~/.local/state/tailwater for others.

Exit codes: 0 ok, 1 configuration or run-time error, 2 wrong command line,
3 stopped with records undelivered (they are read again at the next start),
4 a second signal ended the stop early.";

/// Of `run`.
pub const RUN_HELP: &str = "\
Sources are laid over each other from left to right: maps are merged, lists and values replaced.
  --config base.yaml --config node.yaml         two files
  --config env:AGENT_YAML                       YAML in an environment variable
  --config 'yaml:processors::batch::timeout: 2s'
  --set exporters.loki.endpoint=http://loki:3100/loki/api/v1/push

In values, ${env:NAME}, ${env:NAME:-default} and ${file:PATH} are replaced; $$ is a dollar.

SIGTERM and SIGINT stop the agent when everything under way is delivered, or after
service::shutdown_timeout; a second one at once. What was not delivered is read again.";

/// Of `validate`.
pub const VALIDATE_HELP: &str = "\
Examples:
  tailwater validate --config agent.yaml
  tailwater validate --config agent.yaml --explain
  tailwater validate --config base.yaml --config node.yaml --set exporters.loki.endpoint=http://loki:3100/loki/api/v1/push

Mistakes are printed as FILE:LINE:COLUMN: PATH: TEXT, all at once. Nothing is started and nothing but the
configuration is read.

--explain prints to standard output what comes from where and goes where, pipeline by pipeline, and of each
component the defaults that are in force because the option was not written. It warns, on standard error, of
what is valid and often not meant: settings by which data is left out (on_truncate, start_at: end, on_error:
drop, max_elapsed_time, ...), a $ in a pattern, a null that deletes or a list that replaces what an earlier
source has. Each warning says what to write instead.

Exit codes: 0 valid, warnings or not; 1 mistakes; 2 wrong command line.";

/// Of `components`.
pub const COMPONENTS_HELP: &str = "\
Examples:
  tailwater components                                 types, signals, functions of OTTL
  tailwater components --reference file_log            its options, an example, what is refused
  tailwater components --reference exporters/loki      where receivers have the name, too
  tailwater components --json-schema > tailwater.schema.json

An editor with the YAML language server completes and checks a configuration whose first line is
  # yaml-language-server: $schema=./tailwater.schema.json
What `tailwater validate` says counts: the schema does not know what ${} will give, nor which options go together.";

/// Of `demo`.
pub const DEMO_HELP: &str = "\
Exit code 0 only if every line that was written arrived exactly once. The first Ctrl-C ends the
writing, the second one the waiting for what is under way.";

/// Of `up`.
pub const UP_HELP: &str = "\
Examples:
  tailwater up                                             containers of this machine, to a counter in here
  tailwater up --loki http://loki:3100                     to a Loki
  tailwater up --loki http://loki:3100 --files '/var/log/*.log' --files '/srv/**/*.log'
  tailwater up --docker off --files /var/log/app.log --loki http://loki:3100
  tailwater up --base agent.yaml                           with processors and exporters of your own

A container's logs are tailed from its start, and read and delivered to their end when it stops; so are files
that come and go. Labels are service, project, container, image and stream, or file; see
docs/CONTROL_PLANE.md. A base is a configuration with a pipeline \"logs\" that is given no source of its own.

What is known and how far it was read are in the state directory, so a restart goes on. SIGTERM and SIGINT
stop it when everything under way is delivered; a second one at once.

Exit codes: 0 stopped with everything delivered; 1 nothing to look for, a mistake in the base, or a
run-time error; 2 wrong command line; 3 stopped with records undelivered (they are read again at the
next start); 4 a second signal ended the stop early.";

/// Of `checkpoints`.
pub const CHECKPOINTS_HELP: &str = "\
Examples:
  tailwater checkpoints list
  tailwater checkpoints list --storage-dir /var/lib/otelcol/file_storage   of a file_storage extension
  tailwater checkpoints reset --path /var/log/app.log --yes                to read it anew
  tailwater checkpoints import --from promtail /run/promtail/positions.yaml
  tailwater checkpoints import --from collector --include '/var/log/*.log' /var/lib/otelcol/file_storage";

/// Of the commands that ask a running agent.
pub const AGENT_HELP: &str = "\
Examples:
  tailwater status                                     is it ready, and why not
  tailwater graph                                      what runs, and what is counted of it
  tailwater files --order lag --limit 20               which files are furthest behind
  tailwater plan new.yaml                              what would change, or every mistake
  tailwater apply new.yaml --if-generation 3           put it into force if 3 is what runs
  tailwater rollback                                   back to the configuration before
  tailwater diagnostics                                an archive for the report of a bug
  tailwater reload                                     read again what the command line names
  tailwater status --endpoint http://127.0.0.1:8890 --token-file /etc/tailwater/admin-token

The agent listens where service::admin says. Which agent is asked: --socket or --endpoint, else
TAILWATER_ADMIN (the path of a socket, or http://HOST:PORT), else the socket admin.sock in the
state directory.

Exit codes: 0 done, or nothing to do; 1 refused, not ready, or no answer; 2 wrong command line.";

/// Of `top`.
pub const TOP_HELP: &str = "\
Keys: q ends; tab goes from nodes to files and back; s changes the order; p pauses; up and down,
page up and page down, home and end move in the table.

Rates are differences between two looks. Shapes say the same as colours: with NO_COLOR set there are
none, and without UTF-8 in the locale only ASCII. Where the output is no terminal, one look is
printed as text; its rates are those of one interval.

Which agent is asked: see `tailwater help status`.";

/// Of `try`.
pub const TRY_HELP: &str = "\
Examples:
  tailwater try --config agent.yaml --input /var/log/app.log
  journalctl -o cat | tailwater try --config agent.yaml --limit 20
  tailwater try --config agent.yaml --entries records.json --pipeline logs/app
  tailwater try --config agent.yaml --input app.log --format json | jq .steps

Lines are cut as the receiver cuts files, and go through its operators and through every processor and
connector of the pipeline: the real ones, in this process. Nothing is sent or stored, no address is
contacted, and the exporters and extensions of the configuration are not started. Marks: + added,
- removed, ~ changed.

Time stands still while lines are read. It goes on after the last one, and whenever 1,000 records wait:
then batches are sent, and multi-line records end, as they would be.

--entries takes an array of records, {\"entries\": [...]}, or one record per line. They go in before the
operators. A record: {\"timestamp\": \"2026-01-02T03:04:05Z\", \"severity_number\": 9, \"severity_text\":
\"INFO\", \"body\": ..., \"attributes\": {...}, \"resource\": {...}, \"scope_name\": ..., \"trace_id\": ...,
\"span_id\": ..., \"trace_flags\": ..., \"event_name\": ...}, all of them optional.

--format json prints a line for each record and one with the sums; docs/CONFIGURATION.md has their form.

Exit codes: 0 shown; 1 a mistake in the configuration or the input; 2 wrong command line.";

/// Of `tap`.
pub const TAP_HELP: &str = "\
Examples:
  tailwater tap file_log                               what a receiver reads
  tailwater tap 'processor batch in logs' --after      what leaves a processor
  tailwater tap 'exporter loki (logs)' --rate 100      what comes to an exporter
  tailwater tap loki --limit 1 --json                  one record, with all that it has

One line for each record; with --json the lines of GET /v1/tap. Where a pipeline has several exporters, a
record passes once for each. Which agent is asked: see tailwater status --help.

Exit codes: 0 shown; 1 refused, or no answer; 2 wrong command line.";

/// Of `convert`.
pub const CONVERT_HELP: &str = "\
Examples:
  tailwater convert --from promtail /etc/promtail/config.yaml --output agent.yaml
  tailwater convert --from fluent-bit /etc/fluent-bit/fluent-bit.conf > agent.yaml
  tailwater validate --config agent.yaml --explain

The configuration is written to standard output or to a new file, with a comment at each place where
something was not, or not quite, converted. The same is listed on standard error. Files that a
configuration of Fluent Bit includes are read from its directory.

NO EQUAL: nothing here does this. DECIDE: look at it, or choose. NOT NEEDED: there is nothing to do.

Exit codes: 0 written, whatever had no equal; 1 it cannot be read, or the output exists; 2 wrong
command line.";
