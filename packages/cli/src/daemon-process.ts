/**
 * The daemon's process. How its start went is said on descriptor 3 when `ARCBOX_READY_FD` says so (see DaemonControl),
 * so that whoever started it can wait for that one line.
 */
import { closeSync, writeSync } from 'node:fs';
import { ApiError, Daemon, isOpenAs, JsonLogger, type Probe, probeQemu } from '@arcbox/api';
import { bootAssetsFromEnvironment, HostLayout, loadConfig } from '@arcbox/engine';
import { probeCgroups, QemuDriver, sweepRunRoot } from '@arcbox/vm';

const STDERR = 2;
const READY_FD = 3;
const readyFd = process.env.ARCBOX_READY_FD;
delete process.env.ARCBOX_READY_FD;
/**
 * Emulated CPUs are slowed down by each other: a container's start takes half as much time again with two as with one,
 * and moving bytes out of it more than twice as much.
 */
const TCG_CPUS = 1;

/** Says one line to whoever started us, once. */
function report(line: string): void {
  if (readyFd !== String(READY_FD)) return;
  try {
    writeSync(READY_FD, `${line}\n`);
    closeSync(READY_FD);
  } catch {
    // Whoever started us has gone.
  }
}

async function main(): Promise<void> {
  const layout = HostLayout.fromEnvironment(process.env);
  const { daemonLog } = layout;
  const logger = new JsonLogger(STDERR, isOpenAs(STDERR, daemonLog) ? daemonLog : undefined);
  await layout.prepare();
  const assets = await bootAssetsFromEnvironment(process.env);
  const driver = await QemuDriver.detect({ runRoot: layout.run, bootDirectory: assets.directory });
  const config = await loadConfig({
    environment: process.env,
    file: layout.configFile,
    ...(driver.accelerator.accelerator === 'tcg' ? { machineCpusDefault: TCG_CPUS } : {}),
  });
  const probes: Record<string, Probe> = {
    accelerator: async () => {
      const { accelerator, reason } = driver.accelerator;
      const detail = `${accelerator}: ${reason}`;
      return accelerator === 'tcg'
        ? {
            status: 'warn',
            detail,
            nextStep: 'machines run emulated, several times slower; use a host with KVM',
          }
        : { status: 'ok', detail };
    },
    QEMU: probeQemu(`/usr/bin/qemu-system-${assets.architecture}`),
    cgroups: async () => {
      const { controllers, detail } = probeCgroups();
      return controllers.length > 0
        ? { status: 'ok', detail }
        : { status: 'warn', detail, nextStep: 'machines run without limits of their own on the host' };
    },
  };
  const daemon = await Daemon.start({
    layout,
    config,
    assets,
    driver,
    logger,
    probes,
    async sweep(known) {
      const swept = await sweepRunRoot(
        layout.run,
        known.map(({ runDir }) => runDir),
      );
      if (swept.length > 0) logger.warn('run.swept', { directories: swept.length });
    },
  });
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => daemon.stopOnRequest());
  process.on('SIGHUP', () => {
    // The terminal that we were started from is gone; that is not our end.
  });
  report('ready');
  await daemon.ended;
}

try {
  await main();
} catch (error) {
  const running = error instanceof ApiError && error.code === 'ERR_ARCBOX_DAEMON_RUNNING';
  const message = error instanceof Error ? error.message : String(error);
  const code = error instanceof Error && 'code' in error ? String(error.code) : 'ERR_ARCBOX_INTERNAL';
  report(running ? 'busy' : JSON.stringify({ code, message }));
  if (!running) new JsonLogger().error('daemon.failed', { code, reason: message });
  process.exitCode = 1;
}
