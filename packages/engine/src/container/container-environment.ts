/** What containers need of the rest of the engine. */
import type { ImageStore } from '@arcbox/image';
import type { BootAssets } from '../boot-assets.ts';
import type { EventLog } from '../events/event-log.ts';
import type { HostLayout } from '../host-layout.ts';
import type { Logger } from '../logger.ts';
import type { Machine } from '../machine/machine.ts';
import type { NetworkManager } from '../network/network-manager.ts';
import type { NetworkPlane } from '../network/network-plane.ts';
import type { Room } from '../room.ts';
import type { Store } from '../state/store.ts';
import type { VolumeManager } from '../volume/volume-manager.ts';
import type { Container } from './container.ts';

export interface ContainerEnvironment {
  readonly store: Store;
  readonly layout: HostLayout;
  readonly images: ImageStore;
  readonly assets: BootAssets;
  readonly logger: Logger;
  readonly events: EventLog;
  readonly networks: NetworkManager;
  readonly plane: NetworkPlane;
  readonly volumes: VolumeManager;
  readonly room: Room;
  machine(name: string): Machine;
  /** A container's process runs; `adopted`: since before this daemon. */
  running(container: Container, adopted: boolean): void;
  /** A container is gone, with whatever else belonged to it. */
  removed(id: string): void;
}
