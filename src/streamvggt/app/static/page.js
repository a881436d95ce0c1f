// The page around the viewer: its address, the camera, and calls to the viewer. Gradio's events call these functions.

const CAMERA = { facingMode: "environment", width: { ideal: 1280 } };
const frame = () => document.querySelector("#viewer iframe");
const viewer = () => frame()?.contentWindow.viewer; // undefined until it has loaded
const isNarrow = () => innerWidth < 700;
const showViewer = () => document.querySelector("#viewer").scrollIntoView({ behavior: "smooth" });
let wantsViewer = false; // a run that creates its viewer was started on a small screen

/** Open the camera. Throws an Error with a reason for the user. */
async function openCamera() {
  if (!navigator.mediaDevices) throw new Error("Camera access requires HTTPS or localhost.");
  try {
    return await navigator.mediaDevices.getUserMedia({ video: CAMERA });
  } catch (error) {
    const why = { NotAllowedError: "Camera access was not permitted.", NotFoundError: "No camera was found." };
    throw new Error(why[error.name] ?? `The camera cannot be used: ${error.message}`);
  }
}

window.page = {
  cameraStream: null,

  /** Resume polling of the idle viewer before a run, and scroll to it on small screens. */
  wakeViewer() {
    viewer()?.expectRun();
    if (isNarrow()) showViewer();
  },

  /** Scroll to the viewer as soon as the run creates it. */
  expectViewer() {
    wantsViewer = isNarrow();
  },

  /** The viewer has changed: keep its scene in the address, so that a reload finds it. */
  viewerChanged() {
    const id = frame()?.getAttribute("src").match(/scene\/([^/]+)/)?.[1];
    history.replaceState(null, "", id ? `#scene=${id}` : location.pathname + location.search);
    if (!wantsViewer || !frame()) return;
    wantsViewer = false;
    showViewer();
  },

  /** The run has ended or was rejected, so the viewer stops waiting. */
  runOver() {
    viewer()?.feed.stopExpecting();
    page.closeCamera();
  },

  /** Other weights: the viewer reads whether they have a tracker. */
  weightsChanged() {
    requestAnimationFrame(() => viewer()?.showTracker());
  },

  /** Open the camera before a run, so that a rejected camera keeps the scene shown. Returns the reason of a failure. */
  async openCamera() {
    page.closeCamera();
    page.expectViewer();
    try {
      page.cameraStream = await openCamera();
      return "";
    } catch (error) {
      return error.message;
    }
  },

  closeCamera() {
    page.cameraStream?.getTracks().forEach((track) => track.stop());
    page.cameraStream = null;
  },
};
