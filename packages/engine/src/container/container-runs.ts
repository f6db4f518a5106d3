/** A run of a container: launching its process, following it, recording its end, and releasing what it had. */
import { AgentOpError } from '@arcbox/protocol';
import { faultPoint } from '@arcbox/sys';
import type { Background } from '../background.ts';
import { EngineError, messageOf } from '../errors.ts';
import { AUTO_REMOVE_GRACE_MS, USERS_CACHED_MAX } from '../limits.ts';
import type { ContainerLog } from '../log/container-log.ts';
import { shareDisksByWeight } from '../machine/disk-scheduler.ts';
import { processObjectId } from '../machine/guest-layout.ts';
import type { UpMachine } from '../machine/machine.ts';
import {
  type NetworkPlace,
  NO_NETWORK,
  networkMode,
  placeOf,
  plugIn,
  useMachineNetwork,
} from '../network/container-network.ts';
import { namedContainer } from '../network/network-plane.ts';
import type { Container, ContainerExit } from './container.ts';
import type { ContainerEnvironment } from './container-environment.ts';
import { ContainerProcess } from './container-process.ts';
import type { ContainerRecord } from './container-record.ts';
import type { ContainerRemoval } from './container-removal.ts';
import type { ContainerTable } from './container-table.ts';
import { containerOfMode } from './host-options.ts';
import {
  cleanUpOps,
  explainFailure,
  launch,
  launchOps,
  mountOps,
  readAccounts,
  runTolerant,
} from './launch.ts';
import { assertTogether } from './machine-choice.ts';
import { isShmShared } from './oci-mounts.ts';
import type { Restarts } from './restarts.ts';
import { freezeOp } from './running-cgroup.ts';
import { type ResolvedUser, resolveUser } from './user.ts';

/** The exit code of a container whose end nobody saw. */
const LOST_EXIT_CODE = 255;

export interface RunParts {
  readonly containers: ContainerTable;
  readonly background: Background;
  readonly restarts: Restarts;
  readonly removal: ContainerRemoval;
}

export class ContainerRuns {
  readonly #environment: ContainerEnvironment;
  readonly #containers: ContainerTable;
  readonly #background: Background;
  readonly #restarts: Restarts;
  readonly #removal: ContainerRemoval;
  readonly #users = new Map<string, ResolvedUser>();
  /** We let go of the machine: the ends of processes are the next daemon's business. */
  disowned = false;

  constructor(environment: ContainerEnvironment, parts: RunParts) {
    this.#environment = environment;
    this.#containers = parts.containers;
    this.#background = parts.background;
    this.#restarts = parts.restarts;
    this.#removal = parts.removal;
  }

  /** From `starting` to `running`; when it throws, nothing of the run is in the machine and the log is given back. */
  async start(container: Container): Promise<void> {
    const { record } = container;
    const log = await container.useLog();
    try {
      faultPoint('start.log');
      log.beginRun(record.run);
      const up = await this.#environment.machine(record.machine).ensure();
      const pid = await this.#launch(container, up);
      const process = new ContainerProcess(up.agent, processObjectId(record.id, record.run), pid, log);
      try {
        faultPoint('start.running');
        container.apply('started', { startedMs: Date.now() });
      } catch (error) {
        // It runs, and we could not write that down: it must not go on unowned.
        await this.#cleanUp(container, up);
        throw error;
      }
      this.#follow(container, process, log, up);
      this.#environment.running(container, false);
    } catch (error) {
      await log.endRun().finally(() => container.releaseLog());
      throw error;
    }
  }

  async #launch(container: Container, up: UpMachine): Promise<number> {
    const { record } = container;
    const { images, assets } = this.#environment;
    const { host } = record.config;
    const pidOf = this.#joined(container, host.pidMode);
    const ipcOf = this.#joined(container, host.ipcMode);
    if (ipcOf !== undefined && !isShmShared(ipcOf.record.config.host)) {
      throw new EngineError(
        'ERR_ARCBOX_CONTAINER_START',
        `the container ${ipcOf.record.name} does not share its IPC namespace; create it with --ipc shareable`,
      );
    }
    const image = await images.resolve(record.imageId);
    const lowers = await Promise.all(image.layers.map((layer) => up.mountLayer(layer)));
    const mounts = mountOps(record, lowers);
    let plugging: Promise<NetworkPlace> | undefined;
    try {
      // The bundle's directory says that there may be more to clean up; so it is made first.
      faultPoint('start.mount');
      await up.agent.batch(mounts);
      plugging = this.#plugIn(container, up);
      plugging.catch(() => {});
      const volumeMounts = await this.#environment.volumes.attach(record, up);
      const userKey = JSON.stringify([record.imageId, record.config.user, host.groupAdd]);
      // Only a first start sees the image's own accounts; later ones may have been changed.
      let user = record.run === 1 ? this.#users.get(userKey) : undefined;
      if (user === undefined) {
        const { passwd, group } = await readAccounts(up.agent, record);
        user = resolveUser(record.config.user, passwd, group, host.groupAdd);
        if (this.#users.size >= USERS_CACHED_MAX) this.#users.clear();
        if (record.run === 1) this.#users.set(userKey, user);
      }
      if (host.limits.blkioWeight !== undefined) await shareDisksByWeight(up.agent);
      const network = await plugging;
      const ops = launchOps({
        record,
        user,
        seccompBase64: assets.seccompBase64,
        terminalSize: container.terminalSize,
        joined: {
          ...(pidOf?.process === undefined ? {} : { pid: pidOf.process.pid }),
          ...(ipcOf?.process === undefined ? {} : { ipc: ipcOf.process.pid }),
          ...(network.path === undefined ? {} : { network: network.path }),
        },
        network,
        shmOwnerId: ipcOf?.record.id,
        mounts: volumeMounts,
      });
      faultPoint('start.spawn');
      return await launch(up.agent, ops);
    } catch (error) {
      const failure =
        error instanceof AgentOpError && error.op === 'spawn'
          ? await explainFailure(up.agent, record, error).catch(() => error)
          : error;
      // Its links are not to be made while they are taken away.
      await plugging?.catch(() => {});
      await this.#cleanUp(container, up);
      throw failure;
    }
  }

  /** Its network, ready to be run in. */
  async #plugIn(container: Container, up: UpMachine): Promise<NetworkPlace> {
    const { record } = container;
    const { networks } = this.#environment;
    const mode = networkMode(record);
    if (mode.kind === 'host') return useMachineNetwork(up.network);
    if (mode.kind !== 'container') {
      const [place] = await Promise.all([plugIn(up.network, networks, record), this.joinPlane(record, up)]);
      return place;
    }
    const other = this.#joined(container, record.config.host.networkMode);
    if (other?.process === undefined) return NO_NETWORK;
    return { ...placeOf(networks, other.record), path: `/proc/${other.process.pid}/ns/net` };
  }

  /** Its networks and names, outside of the machine. */
  joinPlane(record: ContainerRecord, up: UpMachine): Promise<void> {
    return this.#environment.plane.join(up.name, namedContainer(record));
  }

  /** The running container whose namespace `mode` joins, if it does. */
  #joined(container: Container, mode: string): Container | undefined {
    const reference = containerOfMode(mode);
    if (reference === undefined) return undefined;
    const other = this.#containers.find(reference);
    assertTogether(container.record, other.record);
    this.#containers.running(other, `joined by ${container.record.name}`);
    return other;
  }

  /** What a start that threw makes of it. */
  startFailed(container: Container, error: unknown): void {
    const { record } = container;
    const code = error instanceof EngineError ? error.code : '';
    const exitCode =
      code === 'ERR_ARCBOX_COMMAND_NOT_FOUND'
        ? 127
        : code === 'ERR_ARCBOX_COMMAND_NOT_EXECUTABLE'
          ? 126
          : 125;
    const change = { exitCode, error: messageOf(error), finishedMs: Date.now() };
    try {
      container.apply(record.run === 1 ? 'startFailed' : 'exit', change);
    } finally {
      container.settleRun(record.run, { exitCode, error: change.error });
    }
    if (record.run > 1) this.#restarts.consider(container);
    if (record.config.autoRemove) this.#background.run('auto_remove', this.#removal.autoRemove(container));
  }

  /** Takes up a run that an earlier daemon began. One whose log cannot be opened is lost, and no other with it: false. */
  async resume(container: Container, up: UpMachine, objectId: string, pid: number): Promise<boolean> {
    const { record } = container;
    let log: ContainerLog;
    try {
      log = await container.useLog();
    } catch (error) {
      this.markLost(container, `its log could not be opened: ${messageOf(error)}`);
      return false;
    }
    if (log.run === record.run) log.resumeRun(AUTO_REMOVE_GRACE_MS);
    else log.beginRun(record.run);
    if (record.state === 'starting') container.apply('started', { startedMs: Date.now() });
    // A daemon that died around a pause, or a commit, may have left it otherwise than it is said to be.
    await runTolerant(up.agent, [freezeOp(record.id, record.state === 'paused')]);
    this.#environment.volumes.adopt(record);
    this.#follow(container, new ContainerProcess(up.agent, objectId, pid, log), log, up);
    this.#environment.running(container, true);
    return true;
  }

  /** From now on the process's end is the container's. */
  #follow(container: Container, process: ContainerProcess, log: ContainerLog, up: UpMachine): void {
    container.process = process;
    container.waiters(container.record.run).started.resolve(process);
    const ended = process.ended.then(
      ({ exitCode }) => ({ exitCode, error: '' }),
      (error: unknown) => ({ exitCode: LOST_EXIT_CODE, error: messageOf(error) }),
    );
    this.#background.run(
      'exit',
      ended.then((exit) => this.#exited(container, log, up, exit)),
    );
  }

  async #exited(container: Container, log: ContainerLog, up: UpMachine, exit: ContainerExit): Promise<void> {
    const { record } = container;
    // We let go of the machine; whether its processes end is the next daemon's business.
    if (this.disowned) return;
    await container.transitions.run(async () => {
      faultPoint('exit.log');
      await log.endRun().catch((error: unknown) => {
        this.#environment.logger.error('container.log_failed', { id: record.id, reason: messageOf(error) });
      });
      try {
        faultPoint('exit.record');
        container.apply('exit', { exitCode: exit.exitCode, error: exit.error, finishedMs: Date.now() });
      } finally {
        // Whatever could not be written (a full disk): it has ended, and whoever waits for that is told.
        container.process = undefined;
        const hadPorts = this.#environment.plane.portsOf(record.id).length > 0;
        const left = this.#leavePlane(record.id);
        container.cleanUp = this.#cleanUp(container, up, left);
        // Who has heard of its end may publish the same ports.
        if (hadPorts) await left;
        container.settleRun(record.run, exit);
        await container.releaseLog();
      }
      this.#restarts.consider(container);
    });
    if (record.config.autoRemove && container.attached === 0) await this.#removal.autoRemove(container);
    await container.cleanUp;
  }

  /** Never rejects. */
  #leavePlane(id: string): Promise<void> {
    return this.#environment.plane.leave(id).catch((error: unknown) => {
      this.#environment.logger.warn('network.leave_failed', { id, reason: messageOf(error) });
    });
  }

  /** Off everybody's path. What is left when it fails is found by the next `reconcile`. */
  async #cleanUp(
    container: Container,
    up: UpMachine,
    left: Promise<void> = this.#leavePlane(container.record.id),
  ): Promise<void> {
    const { record } = container;
    try {
      if (up.agent.ended.aborted) return;
      faultPoint('exit.clean');
      await runTolerant(up.agent, cleanUpOps(record.id, record.run, record.config.host));
    } catch (error) {
      this.#environment.logger.warn('container.clean_up_failed', { id: record.id, reason: messageOf(error) });
    } finally {
      await left;
      await this.#environment.volumes.release(record, up).catch((error: unknown) => {
        this.#environment.logger.warn('volume.sync_failed', { id: record.id, reason: messageOf(error) });
      });
    }
  }

  /** Nothing of its run is in the machine. */
  markLost(container: Container, why: string): void {
    const { record } = container;
    const lost = { exitCode: LOST_EXIT_CODE, error: why, finishedMs: Date.now() };
    // Nobody is led to what is no more; the next start waits for that.
    container.cleanUp = this.#leavePlane(record.id);
    if (record.state === 'starting') {
      // It was never said to run: as if that start had not been asked for, so that it can be asked for again.
      const run = record.run - 1;
      if (run === 0) container.apply('startFailed', { run });
      else container.apply('exit', { ...lost, run });
      if (run > 0) this.#restarts.consider(container);
      return;
    }
    container.apply('exit', lost);
    container.settleRun(record.run, { exitCode: lost.exitCode, error: why });
    this.#restarts.consider(container);
  }
}
