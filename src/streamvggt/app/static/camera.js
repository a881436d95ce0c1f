// Images of the user's camera, sent one at a time: the response of the server requests the next one.

const WIDTH = 640; // of the sent images in pixels; models use fewer
const QUALITY = 0.88;

/** Send images of an open camera while `shouldContinue()`. */
export async function sendFrames(stream, shouldContinue) {
  const video = Object.assign(document.createElement("video"), { srcObject: stream, muted: true, playsInline: true });
  await video.play();
  while (stream.active && shouldContinue()) {
    const width = Math.min(WIDTH, video.videoWidth);
    const canvas = new OffscreenCanvas(width, Math.round((video.videoHeight * width) / video.videoWidth));
    canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
    const image = await canvas.convertToBlob({ type: "image/jpeg", quality: QUALITY });
    await fetch("camera-frame", { method: "POST", body: image });
  }
}
