import { EngineError, type Runtime } from '@arcbox/engine';
import { type Credentials, parsePlatform, registryDomain } from '@arcbox/image';
import type { ServiceImpl } from '@connectrpc/connect';
import type { ImageService, RegistryCredentials } from '../gen/arcbox/v1/image_pb.ts';
import { imageMessage, removalMessage, transferMessages } from './image-messages.ts';

export function imageService({ images, room }: Runtime): ServiceImpl<typeof ImageService> {
  return {
    async list() {
      return { images: (await images.list()).map(imageMessage) };
    },
    async inspect({ name }) {
      const image = await images.resolve(named(name));
      return {
        image: imageMessage(image),
        config: image.configBytes.toString('utf8'),
        diffIds: [...image.config.diffIds],
      };
    },
    async history({ name }) {
      const entries = await images.history(named(name));
      return {
        entries: entries.map((entry) => ({
          ...entry,
          sizeBytes: BigInt(entry.sizeBytes),
          names: [...entry.names],
        })),
      };
    },
    async tag({ source, target }) {
      await images.tag(named(source), named(target));
      return {};
    },
    async remove({ name, force }) {
      return { removals: (await images.remove(named(name), { force })).map(removalMessage) };
    },
    async prune({ all, createdBeforeMs }) {
      const { removed, reclaimedBytes } = await images.prune({
        all,
        ...(createdBeforeMs === 0n ? {} : { createdBeforeMs: Number(createdBeforeMs) }),
      });
      return { removals: removed.map(removalMessage), reclaimedBytes: BigInt(reclaimedBytes) };
    },
    async login({ server, credentials }) {
      const given = credentialsOf(credentials);
      if (given === undefined || server === '')
        throw new EngineError('ERR_ARCBOX_INVALID_ARGUMENT', 'a login needs a server and credentials');
      await images.checkLogin(registryDomain(server), given);
      return {};
    },
    async *pull({ name, platform, credentials }, { signal }) {
      await room.needDisk(`the image ${name}`);
      yield* transferMessages(async (onProgress) => {
        const { image, digest, changed } = await images.pull(named(name), {
          onProgress,
          signal,
          credentials: credentialsOf(credentials),
          platform: platform === '' ? undefined : parsePlatform(platform),
        });
        return { images: [imageMessage(image)], digest, changed };
      });
    },
    async *push({ name, credentials }, { signal }) {
      yield* transferMessages(async (onProgress) => {
        const { digest } = await images.push(named(name), {
          onProgress,
          signal,
          credentials: credentialsOf(credentials),
        });
        return { images: [imageMessage(await images.resolve(name))], digest, changed: true };
      });
    },
  };
}

function named(name: string): string {
  if (name === '') throw new EngineError('ERR_ARCBOX_INVALID_ARGUMENT', 'an image must be named');
  return name;
}

function credentialsOf(message: RegistryCredentials | undefined): Credentials | undefined {
  if (message === undefined) return undefined;
  const { username, password, identityToken } = message;
  return { username, password, ...(identityToken === '' ? {} : { identityToken }) };
}
