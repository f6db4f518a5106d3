import type { Runtime } from '@arcbox/engine';
import type { ServiceImpl } from '@connectrpc/connect';
import type { ImageService } from '../gen/arcbox/v1/image_pb.ts';

export function imageService(runtime: Runtime): ServiceImpl<typeof ImageService> {
  return {
    async list() {
      const images = await runtime.images.list();
      return {
        images: images.map((image) => ({
          id: image.id,
          names: [...image.names],
          created: image.config.created,
          sizeBytes: BigInt(image.layers.reduce((sum, layer) => sum + layer.sizeBytes, 0)),
          architecture: image.config.architecture,
        })),
      };
    },
  };
}
