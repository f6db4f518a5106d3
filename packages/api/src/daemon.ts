/**
 * The daemon: one for each data directory, which the lock on `run/daemon.lock` decides. It owns the socket, the pid
 * file and the runtime, and gives all of them back when it ends.
 */
import { renameSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { type BootAssets, type Config, type HostLayout, type Logger, Runtime } from '@arcbox/engine';
import { dropCleanFilePages, FileLock, trimFreedMemory } from '@arcbox/sys';
import type { VmDriver, VmHandle } from '@arcbox/vm';
import { serveImageBulk } from './bulk/images.ts';
import { createDoctor, type Probe, probeBootAssets, probeHome, probeMemory, probeTmpfs } from './doctor.ts';
import { ApiError } from './errors.ts';
import { serveFiles } from './files/files-server.ts';
import { ContainerService } from './gen/arcbox/v1/container_pb.ts';
import { ExecService } from './gen/arcbox/v1/exec_pb.ts';
import { ImageService } from './gen/arcbox/v1/image_pb.ts';
import { MachineService } from './gen/arcbox/v1/machine_pb.ts';
import { NetworkService } from './gen/arcbox/v1/network_pb.ts';
import { SystemService } from './gen/arcbox/v1/system_pb.ts';
import { VolumeService } from './gen/arcbox/v1/volume_pb.ts';
import { FAREWELL_TIMEOUT_MS } from './limits.ts';
import { answerMetrics, MetricsServer } from './metrics-server.ts';
import { registration } from './rpc/registration.ts';
import { ApiServer } from './server.ts';
import { containerService } from './services/container-service.ts';
import { execService } from './services/exec-service.ts';
import { imageService } from './services/image-service.ts';
import { machineService } from './services/machine-service.ts';
import { networkService } from './services/network-service.ts';
import { systemService } from './services/system-service.ts';
import { volumeService } from './services/volume-service.ts';
import { serveUpgrade } from './stdio/upgrade.ts';

export interface DaemonOptions {
  readonly layout: HostLayout;
  readonly config: Config;
  readonly assets: BootAssets;
  readonly driver: VmDriver;
  readonly logger: Logger;
  /** See `RuntimeOptions.sweep`. */
  sweep?(known: readonly VmHandle[]): Promise<void>;
  /** What `doctor` looks at besides what every daemon can look at. */
  readonly probes?: Readonly<Record<string, Probe>>;
}

export class Daemon implements AsyncDisposable {
  /** Takes the data directory. Throws `ERR_ARCBOX_DAEMON_RUNNING` when another daemon has it. */
  static async start(options: DaemonOptions): Promise<Daemon> {
    const { layout, logger } = options;
    await layout.prepare();
    const result = FileLock.tryAcquire(layout.lock);
    if (!result.held) {
      const who = result.holder === undefined ? 'another process' : `process ${result.holder.pid}`;
      throw new ApiError(
        'ERR_ARCBOX_DAEMON_RUNNING',
        `a daemon is running already: ${who} has ${layout.lock}`,
      );
    }
    try {
      // Aside and renamed: whoever reads it to send a signal must not find it empty.
      writeFileSync(`${layout.pidFile}.new`, `${process.pid}\n`, { mode: 0o600 });
      renameSync(`${layout.pidFile}.new`, layout.pidFile);
      const daemon = new Daemon(options, result.lock);
      try {
        await daemon.#server.listen(layout.socket);
        const { metricsAddress } = options.config;
        if (metricsAddress !== '') {
          daemon.#metrics = await MetricsServer.listen(metricsAddress, daemon.#runtime);
          logger.info('metrics.listening', { address: metricsAddress });
        }
      } catch (error) {
        await daemon.#server.close();
        // A machine that was taken over goes on, for a daemon that can be reached.
        await daemon.#runtime.close({ disown: true });
        throw error;
      }
      logger.info('daemon.ready', { pid: process.pid, home: layout.home, ms: Math.round(performance.now()) });
      return daemon;
    } catch (error) {
      await rm(layout.pidFile, { force: true });
      result.lock[Symbol.dispose]();
      throw error;
    }
  }

  /** Settles when the daemon has given everything back. */
  readonly ended: Promise<void>;
  readonly #layout: HostLayout;
  readonly #logger: Logger;
  readonly #runtime: Runtime;
  readonly #server: ApiServer;
  #metrics: MetricsServer | undefined;
  readonly #lock: FileLock;
  readonly #end = Promise.withResolvers<void>();
  #stopping: Promise<void> | undefined;

  private constructor(options: DaemonOptions, lock: FileLock) {
    const { layout, assets, logger } = options;
    this.#layout = layout;
    this.#logger = logger;
    this.#lock = lock;
    this.ended = this.#end.promise;
    const runtime = new Runtime(options);
    this.#runtime = runtime;
    const doctor = createDoctor({
      'boot assets': probeBootAssets(assets),
      ...options.probes,
      tmpfs: probeTmpfs,
      memory: probeMemory,
      'data directory': probeHome(layout.home),
    });
    this.#server = new ApiServer({
      services: [
        registration(SystemService, systemService({ runtime, doctor, shutdown: () => this.stopOnRequest() })),
        registration(ContainerService, containerService(runtime)),
        registration(ExecService, execService(runtime)),
        registration(MachineService, machineService(runtime)),
        registration(NetworkService, networkService(runtime)),
        registration(ImageService, imageService(runtime)),
        registration(VolumeService, volumeService(runtime)),
      ],
      onRequest: (request, response) =>
        serveFiles(runtime, request, response) ?? serveImageBulk(runtime, request, response),
      onMetrics: (response) => answerMetrics(runtime, response),
      onUpgrade: (request, socket, head) => serveUpgrade(runtime, request, socket, head),
      onError: (error) => logger.error('server.failed', { reason: String(error) }),
      onQuiet: () => {
        try {
          trimFreedMemory();
          dropCleanFilePages();
        } catch (error) {
          logger.warn('daemon.drop_pages_failed', { reason: String(error) });
        }
      },
    });
  }

  /** Stops containers and machines, tells clients, and gives everything back. Again: waits for the same end. */
  stop(options: { disown?: boolean } = {}): Promise<void> {
    this.#stopping ??= this.#stop(options.disown ?? false);
    return this.#stopping;
  }

  /** `stop` for those who cannot wait for it: what goes wrong is in the log, and the daemon ends all the same. */
  stopOnRequest(): void {
    this.stop().catch((error: unknown) => {
      this.#logger.error('daemon.stop_failed', { reason: String(error) });
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  async #stop(disown: boolean): Promise<void> {
    this.#logger.info('daemon.stopping');
    try {
      await this.#metrics?.[Symbol.asyncDispose]();
      await this.#server.stopListening();
      try {
        if (!disown) {
          await this.#runtime.stopContainers();
          await this.#server.streamsEnded(FAREWELL_TIMEOUT_MS);
        }
      } finally {
        // Also when a container could not be stopped: without the lock nothing of ours may go on.
        await this.#runtime.close({ disown });
      }
    } finally {
      await this.#server.close();
      await rm(this.#layout.pidFile, { force: true });
      this.#lock[Symbol.dispose]();
      this.#logger.info('daemon.stopped');
      this.#end.resolve();
    }
  }
}
