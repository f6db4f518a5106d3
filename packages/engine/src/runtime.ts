/** Everything the daemon runs, put together: state, images, machines, containers. One per data directory. */
import { type Image, ImageStore } from '@arcbox/image';
import type { VmDriver, VmHandle } from '@arcbox/vm';
import { type BootAssets, bootDirectory, loadBootAssets } from './boot-assets.ts';
import type { Config } from './config.ts';
import { type CommitOptions, commitContainer } from './container/commit.ts';
import { ContainerFiles } from './container/container-files.ts';
import { ContainerManager } from './container/container-manager.ts';
import { ContainerTools } from './container/container-tools.ts';
import { HealthMonitor } from './container/health.ts';
import { type DiskUsage, diskUsage } from './disk-usage.ts';
import { EngineError, messageOf } from './errors.ts';
import { EventLog } from './events/event-log.ts';
import { ExecManager } from './exec/exec-manager.ts';
import type { HostLayout } from './host-layout.ts';
import type { Logger } from './logger.ts';
import type { Machine } from './machine/machine.ts';
import { MachineManager } from './machine/machine-manager.ts';
import type { MachineOptions } from './machine/machine-record.ts';
import { NetworkManager } from './network/network-manager.ts';
import { NetworkPlane, uplinkOf } from './network/network-plane.ts';
import { NetworkPolicies } from './network/policies.ts';
import { Room } from './room.ts';
import { Store } from './state/store.ts';
import { VolumeManager } from './volume/volume-manager.ts';

export interface RuntimeOptions {
  readonly layout: HostLayout;
  readonly config: Config;
  readonly assets: BootAssets;
  readonly driver: VmDriver;
  readonly logger: Logger;
  /** Ends what runs on this host in our name and is none of the known machines. Called once, before anything boots. */
  sweep?(known: readonly VmHandle[]): Promise<void>;
}

export class Runtime implements AsyncDisposable {
  readonly config: Config;
  readonly layout: HostLayout;
  readonly assets: BootAssets;
  readonly driver: VmDriver;
  readonly images: ImageStore;
  readonly events: EventLog;
  readonly room: Room;
  readonly networks: NetworkManager;
  readonly policies: NetworkPolicies;
  readonly plane: NetworkPlane;
  readonly #store: Store;
  readonly #logger: Logger;
  readonly #machines: MachineManager;
  readonly #containers: ContainerManager;
  readonly #execs: ExecManager;
  readonly #health: HealthMonitor;
  readonly #tools: ContainerTools;
  readonly #volumes: VolumeManager;
  readonly #files: ContainerFiles;
  readonly #adopted: Promise<void>;
  #refusing = false;
  #closing: Promise<void> | undefined;

  /** Opens the state; a machine that an earlier daemon left is taken over behind the caller's back. */
  constructor(options: RuntimeOptions) {
    const { layout, config, assets, driver, logger } = options;
    this.config = config;
    this.layout = layout;
    this.assets = assets;
    this.driver = driver;
    this.#logger = logger;
    this.#store = new Store(layout.stateDatabase);
    this.events = new EventLog(layout.eventsDatabase, {
      onWriteError: (error) => logger.error('event.not_written', { reason: messageOf(error) }),
    });
    this.room = new Room(layout.home, config.reserves);
    this.networks = new NetworkManager(this.#store.networks, config.networkCidr);
    this.policies = new NetworkPolicies(this.#store.policies, this.events);
    this.plane = new NetworkPlane(this.networks, this.policies, uplinkOf(config), logger);
    this.images = new ImageStore({
      database: this.#store.database,
      directory: layout.content,
      bootDirectory: assets.directory,
      registries: config.registries,
      onEvent: (action, id, name) => this.events.emit('image', action, id, name === '' ? {} : { name }),
      isRunning: (id) => this.#containers.isLive(id),
      beforeRemoval: async (digests) => {
        for (const up of await this.#machines.up()) await up.layers.release(digests);
      },
    });
    this.#machines = new MachineManager({
      driver,
      layout,
      store: this.#store,
      config,
      assets,
      logger,
      events: this.events,
      starting: () => this.plane.warmUp(),
      reconcile: async (up, wasIdle) => {
        await this.plane.plug(up.name, up.vm);
        if (!wasIdle) await this.#containers.reconcile(up);
        await this.#volumes.reconcile(up);
      },
      room: this.room,
      releaseUnused: async (up) => {
        await this.#volumes.releaseUnused(up);
        await this.#containers.tidy(up);
      },
      inUse: (machine) => this.#containers.inUse(machine),
      layersInUse: (machine) => this.#layersInUse(machine),
      lost: (machine, why) => this.#containers.machineLost(machine, why),
      containersOf: (machine) => this.#containers.of(machine),
      removeContainer: (id) => this.#containers.remove(id, { force: true, volumes: true }),
      removed: (machine) => {
        this.policies.forget({ kind: 'machine', id: machine });
        return this.plane.forgetMachine(machine);
      },
    });
    this.#volumes = new VolumeManager({
      room: this.room,
      store: this.#store,
      layout,
      logger,
      events: this.events,
      usersOf: (name) => this.#containers.usersOfVolume(name),
    });
    this.#containers = new ContainerManager({
      volumes: this.#volumes,
      room: this.room,
      store: this.#store,
      layout,
      images: this.images,
      assets,
      logger,
      events: this.events,
      networks: this.networks,
      plane: this.plane,
      machine: (name) => this.machine(name),
      running: (container, adopted) => {
        this.#health.watch(container, adopted).catch((error: unknown) => {
          logger.error('health.failed', { id: container.record.id, reason: messageOf(error) });
        });
      },
      removed: (id) => {
        this.policies.forget({ kind: 'container', id });
        this.#execs.forget(id);
      },
    });
    const parts = {
      logger,
      containers: () => this.#containers,
      machine: (name: string) => this.machine(name),
    };
    this.#execs = new ExecManager(parts);
    this.#health = new HealthMonitor(this.#execs);
    this.#tools = new ContainerTools(parts);
    this.#files = new ContainerFiles({ ...parts, images: this.images, volumes: this.#volumes });
    this.#adopted = this.#takeOver(options)
      .then(() => this.#containers.startWanted())
      .catch((error: unknown) => {
        logger.error('runtime.take_over_failed', { reason: messageOf(error) });
      });
  }

  /** The containers, once what an earlier daemon left behind has been looked at, so that what is listed is true. */
  async containers(): Promise<ContainerManager> {
    await this.#adopted;
    if (this.#refusing) throw new EngineError('ERR_ARCBOX_SHUTTING_DOWN', 'the daemon is shutting down');
    return this.#containers;
  }

  /** Commands run beside the containers' own, once the containers are known. */
  async execs(): Promise<ExecManager> {
    await this.containers();
    return this.#execs;
  }

  /** Files of containers, in and out. */
  async files(): Promise<ContainerFiles> {
    await this.containers();
    return this.#files;
  }

  /** Makes an image of a container, see `commitContainer`. */
  async commit(reference: string, options: CommitOptions): Promise<Image> {
    const containers = await this.containers();
    return commitContainer(
      { images: this.images, containers, files: this.#files, machine: (name) => this.machine(name) },
      reference,
      options,
    );
  }

  /** Looking into containers, once they are known. */
  async tools(): Promise<ContainerTools> {
    await this.containers();
    return this.#tools;
  }

  /** The volumes, once what an earlier daemon left behind has been looked at. */
  async volumes(): Promise<VolumeManager> {
    await this.#adopted;
    if (this.#refusing) throw new EngineError('ERR_ARCBOX_SHUTTING_DOWN', 'the daemon is shutting down');
    return this.#volumes;
  }

  /** What everything takes on the host's disk. */
  async diskUsage(): Promise<DiskUsage> {
    const { layout, images } = this;
    const [containers, volumes, machines] = [
      await this.containers(),
      await this.volumes(),
      await this.machines(),
    ];
    return diskUsage({ layout, images, containers, volumes, machines });
  }

  /** All machines, in order of their names. */
  async machines(): Promise<readonly Machine[]> {
    await this.#adopted;
    return this.#machines.list();
  }

  /** Throws `ERR_ARCBOX_MACHINE_NOT_FOUND`. */
  machine(name: string): Machine {
    return this.#machines.find(name);
  }

  /** Makes a machine beside the default one; see `MachineManager.create`. */
  async createMachine(name: string, options: MachineOptions): Promise<Machine> {
    await this.containers();
    return this.#machines.create(name, options);
  }

  /** Removes a machine with its disk; see `MachineManager.remove`. */
  async removeMachine(name: string, options: { force?: boolean } = {}): Promise<void> {
    await this.containers();
    await this.#machines.remove(name, options.force === true);
  }

  /** Removes a network that no container is in, and its links in machines. */
  async removeNetwork(reference: string): Promise<void> {
    await this.#adopted;
    const network = this.networks.remove(reference);
    const { id, name, vlan } = network;
    this.events.emit('network', 'destroy', id, { name, type: 'bridge' });
    for (const up of await this.#machines.up()) await up.network.removeNetwork(vlan);
    await this.plane.forget(network);
  }

  /** Idles the machine down now; see `Machine.idleDown`. */
  async idleMachine(name: string): Promise<void> {
    const machine = this.machine(name);
    await this.#adopted;
    if (!(await machine.idleDown()))
      throw new EngineError('ERR_ARCBOX_MACHINE_STATE', `the machine ${name} was needed while it idled down`);
  }

  /** Stops the machine with its containers. */
  async stopMachine(name: string): Promise<void> {
    const machine = this.machine(name);
    const containers = await this.containers();
    await containers.stopAll(containers.of(name));
    await machine.stop();
  }

  /** Takes no more work and stops every container. */
  async stopContainers(): Promise<void> {
    this.#refusing = true;
    this.#containers.end();
    await this.#adopted;
    await this.#containers.stopAll();
  }

  /** Stops containers and machines and releases everything. With `disown` machines go on, for the next daemon. */
  close(options: { disown?: boolean } = {}): Promise<void> {
    this.#closing ??= this.#close(options.disown ?? false);
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #layersInUse(machine: string): Promise<ReadonlySet<string>> {
    const used = this.#containers.all().filter(({ record, live, transitions }) => {
      return record.machine === machine && (live || transitions.busy);
    });
    const images = await Promise.all(used.map(({ record }) => this.images.resolve(record.imageId)));
    return new Set(images.flatMap(({ layers }) => layers.map(({ digest }) => digest)));
  }

  async #takeOver(options: RuntimeOptions): Promise<void> {
    await this.#machines.takeOver(options.sweep?.bind(options));
    await this.#machines.finishRemovals();
    await this.#volumes.finishRemovals();
  }

  async #close(disown: boolean): Promise<void> {
    this.#refusing = true;
    await this.#adopted;
    try {
      if (disown) {
        this.#containers.disown();
        await this.#machines.disown();
      } else {
        try {
          await this.stopContainers();
          await this.#containers.drain();
        } finally {
          // A container that could not be stopped ends with its machine.
          await this.#machines.stop();
        }
      }
      await this.#containers.drain();
      await this.#execs.drain();
    } catch (error) {
      this.#logger.error('runtime.close_failed', { reason: messageOf(error) });
      throw error;
    } finally {
      await this.plane[Symbol.asyncDispose]();
      await this.images.close();
      this.events[Symbol.dispose]();
      this.#store[Symbol.dispose]();
    }
  }
}

/** The boot assets that the environment names. */
export async function bootAssetsFromEnvironment(environment: NodeJS.ProcessEnv): Promise<BootAssets> {
  return loadBootAssets(bootDirectory(environment));
}
